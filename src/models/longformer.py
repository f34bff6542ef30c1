"""Longformer (Beltagy et al. 2020): a BERT for long texts, in time and memory that grow as their length.

Each token looks at a window around it. A few global ones, such as [CLS] or the tokens of a question, look at all
tokens, by projections of their own, and are seen by all. It is trained on masked words alone (section 5), so that
BERT's pooler and its head for next sentences are left out.

Shape letters: B batch, T tokens, M predicted positions, C = d_model, V = vocab_size.
"""

from dataclasses import KW_ONLY, dataclass, field

from torch import Tensor

from src.models.bert import MASKED, BERTConfig, BERTEncoder, BERTOutput, MaskedWordHead, at, init_weights
from src.models.network import Network, Step
from src.nn import POSITIONS, GlobalSelfAttention, GlobalTokens, Mask


@dataclass(frozen=True)
class LongformerConfig(BERTConfig):
    """The shape of a Longformer. The defaults are Longformer base, but for its vocabulary.

    Args:
        attention: how windows are computed: ``sliding_window``; or ``dense``, in quadratic time.
        window: how many tokens on each side every token sees, one number or one a block.
        global_tokens: positions that are global in every input; 0 is [CLS].
    """

    max_seq_len: int = 4096
    _: KW_ONLY
    attention: str = "sliding_window"
    window: int | list[int] = 256
    global_tokens: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention not in ("sliding_window", "dense"):
            raise ValueError(f"attention is {self.attention!r}: a Longformer has 'sliding_window' or 'dense'")
        if self.window is None:
            raise ValueError("window is null: a Longformer needs one, the tokens on each side")
        if self.positions == "alibi" or POSITIONS[self.positions].attention:
            raise ValueError(
                f"positions is {self.positions!r}: a Longformer's attention, which has global tokens, takes 'learned', "
                "'sinusoidal' or 'rotary'"
            )
        if self.attention_softcap is not None:
            raise ValueError(f"attention_softcap is {self.attention_softcap}: a Longformer's global tokens have none")
        if self.value_residual:
            raise ValueError("value_residual is true: a Longformer's global tokens have values of their own")
        outside = [p for p in self.global_tokens if not 0 <= p < self.max_seq_len]
        if outside or len(set(self.global_tokens)) < len(self.global_tokens):
            raise ValueError(
                f"global_tokens is {self.global_tokens}: they must be different positions from 0 to "
                f"{self.max_seq_len - 1}"
            )


class LongformerEncoder(BERTEncoder):
    """BERT's encoder with global tokens, and without a pooler."""

    attention = GlobalSelfAttention
    config: LongformerConfig

    def mask(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
    ) -> Mask:
        """Say which tokens each block may look at."""
        if global_attention_mask is None:
            global_tokens = GlobalTokens.at(self.config.global_tokens, input_ids, attention_mask)
        elif global_attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"global_attention_mask is {tuple(global_attention_mask.shape)}: it must be as input_ids, "
                f"{tuple(input_ids.shape)}"
            )
        else:
            global_tokens = GlobalTokens.where(global_attention_mask, attention_mask)
        return Mask(input_ids.shape[1], attention_mask=attention_mask, global_tokens=global_tokens)


class Longformer(Network):
    """The encoder with the head for masked words."""

    def __init__(self, config: LongformerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = LongformerEncoder(config)
        self.masked_words = MaskedWordHead(config, self.encoder.token_embedding)
        init_weights(self, config.init_std)

    def steps(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> list[Step]:
        """Predict the masked words.

        Args:
            input_ids: (B, T), as the next two in :meth:`BERTEncoder.steps`; of any length up to ``max_seq_len``.
            token_type_ids: (B, T).
            attention_mask: (B, T).
            masked_positions: (B, M), the positions to predict; all if None.
            global_attention_mask: (B, T), 1 at global tokens; those of the configuration if None.
            labels: (B, M), the words there; -100 where none is to be predicted.

        Returns:
            The steps to a :class:`BERTOutput` without next sentences.
        """

        def predict(hidden: Tensor) -> BERTOutput:
            return BERTOutput(self.masked_words(at(hidden, masked_positions), labels), None)

        masks = {"attention_mask": attention_mask, "global_attention_mask": global_attention_mask}
        encoder = self.encoder.steps(input_ids, token_type_ids, **masks)
        return [*encoder, Step(predict, [self.masked_words], fraction=MASKED)]
