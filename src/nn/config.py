"""The choices in a block, which every network's configuration has: their defaults, and what cannot work."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from src.nn.feed_forward import ACTIVATIONS, GATED
from src.nn.kernels import KERNELS
from src.nn.masks import AttentionSpan
from src.nn.positions import POSITIONS, Rope, RopeScaling, alibi_slopes

NormPlacement = Literal["pre", "post"]
NormType = Literal["layer", "rms", "rms_plain"]


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """The shape of a block and the choices in it. `docs/modern.md` has the formula of each, and its paper.

    A network's configuration is a subclass, with defaults of its own; it may leave out what it says nothing else of.

    Args:
        d_model: width of the residual stream.
        n_heads: attention heads.
        n_kv_heads: heads of keys and values, each of which serves equally many heads of queries; n_heads if None.
        head_dim: width of a head; d_model / n_heads if None.
        d_ff: width of the feed-forward network; 4 x d_model if None.
        activation: of the feed-forward network: a name in :data:`src.nn.feed_forward.ACTIVATIONS`.
        gated: whether the activation's value multiplies a second projection; ``swiglu`` is ``swish``, gated.
        dropout: of the embeddings and of each sub-layer's output.
        attention_dropout: of the attention weights.
        norm: before each sub-layer (``pre``) or after it (``post``).
        norm_type: ``layer``, ``rms`` without mean and bias, or ``rms_plain``, without weights as well.
        norm_eps: added to the variance in each norm.
        first_norm: whether a pre-norm stack norms what its first attention reads; False where embeddings are normed.
        bias: whether linear layers and norms have one.
        mlp_bias: whether those of the feed-forward network have one; as the others if None.
        qk_norm: whether each head's queries and keys are divided by their root mean square, with a weight.
        positions: ``learned`` or ``sinusoidal`` embeddings; ``rotary`` or ``alibi`` within attention; or another name
            in :data:`src.nn.positions.POSITIONS`.
        rope_base: of the rotary angles: a larger one turns more slowly.
        rope_local_base: that of blocks with a window, without scaling; as of the others if None.
        rope_fraction: of each head's dimensions are turned.
        rope_scaling: how rotary positions reach further than they were trained: see :class:`src.nn.positions.Rope`.
        rope_factor: how many times as far.
        rope_original_len: the context, in tokens, in which they were trained, of ``yarn`` and ``llama3``.
        attention: how it is computed: a name in :data:`src.nn.kernels.KERNELS`.
        window: how many tokens on each side, of a causal network before it, each token sees, one number or one a
            block; all if None.
        window_pattern: which blocks have the window, such as ``LLG``, repeated over the depth: L does, G sees all.
        dilation: every so many-th token is seen, and the window spans so many times as far; one number or one a head.
        attention_softcap: what no attention score exceeds; None for no bound.
        value_residual: whether each block but the first attends to the mean of its own and the first block's values.
        token_shift: whether each sub-layer reads a part of the token before, beside each token.
        parallel: whether attention and feed-forward network read one norm of the same input, and are added together.
        zero_init: whether the last projection of each sub-layer starts at zero, and so each block as the identity.

    Raises:
        ValueError: for a shape that cannot work.
    """

    d_model: int
    n_heads: int
    n_kv_heads: int | None = None
    head_dim: int | None = None
    d_ff: int | None = None
    activation: str = "gelu"
    gated: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    norm: NormPlacement = "pre"
    norm_type: NormType = "layer"
    norm_eps: float = 1e-5
    first_norm: bool = True
    bias: bool = True
    mlp_bias: bool | None = None
    qk_norm: bool = False
    positions: str = "learned"
    rope_base: float = 1e4
    rope_local_base: float | None = None
    rope_fraction: float = 1.0
    rope_scaling: RopeScaling | None = None
    rope_factor: float = 1.0
    rope_original_len: int | None = None
    attention: str = "dense"
    window: int | list[int] | None = None
    window_pattern: str | None = None
    dilation: int | list[int] = 1
    attention_softcap: float | None = None
    value_residual: bool = False
    token_shift: bool = False
    parallel: bool = False
    zero_init: bool = False

    # ---- what follows from the fields

    @property
    def head_width(self) -> int:
        """The width of a head."""
        return self.head_dim or self.d_model // self.n_heads

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward network has a gate."""
        return self.gated or self.activation in GATED

    @property
    def has_mlp_bias(self) -> bool:
        """Whether the linear layers of the feed-forward network have a bias."""
        return self.bias if self.mlp_bias is None else self.mlp_bias

    def window_of(self, layer: int) -> int | None:
        """The window of a block; None if it sees all tokens."""
        if self.window_pattern and self.window_pattern[layer % len(self.window_pattern)] == "G":
            return None
        return self.window[layer] if isinstance(self.window, list) else self.window

    def span(self, layer: int = 0) -> AttentionSpan:
        """How far the heads of a block look."""
        window = self.window_of(layer)
        dilation = _listed(self.dilation) * (1 if isinstance(self.dilation, list) else self.n_heads)
        dilated = window is not None and max(dilation) > 1
        slopes = alibi_slopes(self.n_heads) if self.positions == "alibi" else ()
        return AttentionSpan(window, tuple(dilation) if dilated else (), slopes, self.attention_softcap)

    def rope(self, layer: int = 0) -> Rope | None:
        """How a block turns its queries and keys; None if positions are not rotary."""
        if self.positions != "rotary":
            return None
        dims = int(self.head_width * self.rope_fraction)
        if self.rope_local_base is not None and self.window_of(layer) is not None:
            return Rope(dims, self.rope_local_base)
        return Rope(dims, self.rope_base, self.rope_scaling, self.rope_factor, self.rope_original_len)

    # ---- what cannot work

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_norms()
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {self.activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        self._check_heads()
        self._check_positions()
        self._check_window()
        self._check_kernel()

    def _check_sizes(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name in ("window", "n_segments", "n_value_embeddings") else 1
            if type(value) is int and not least <= value < 1 << 31:
                raise ValueError(f"{name} is {value}: it must be at least {least} and below 2^31")
            if "dropout" in name and not 0 <= value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 0 and less than 1")
            least = 1 if name in ("rope_base", "rope_local_base") else 0
            is_above = least or "softcap" in name or name in ("norm_eps", "init_std")
            if is_above and value is not None and not least < value < math.inf:
                raise ValueError(f"{name} is {value}: it must be above {least} and finite")

    def _check_norms(self) -> None:
        for name, choices in (("norm", NormPlacement), ("norm_type", NormType)):
            if getattr(self, name) not in get_args(choices):
                allowed = " or ".join(repr(choice) for choice in get_args(choices))
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose {allowed}")
        if not self.first_norm and self.norm == "post":
            raise ValueError("first_norm is false: it leaves out a norm that only norm 'pre' has")
        if self.parallel and self.norm == "post":
            raise ValueError("parallel is true: its sub-layers read one norm, which goes with norm 'pre' alone")

    def _check_heads(self) -> None:
        if self.head_dim is None and self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}")
        if self.n_heads % (self.n_kv_heads or self.n_heads):
            raise ValueError(f"n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}")

    def _check_positions(self) -> None:
        if self.positions not in POSITIONS:
            raise ValueError(f"positions is {self.positions!r}: choose one of {', '.join(POSITIONS)}")
        if self.positions == "rotary":
            self._check_rope()
            return
        fields = type(self).__dataclass_fields__
        for name in (name for name in fields if name.startswith("rope_")):
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} is {getattr(self, name)}: it goes with positions 'rotary' alone")

    def _check_rope(self) -> None:
        if not 0 < self.rope_fraction <= 1:
            raise ValueError(f"rope_fraction is {self.rope_fraction}: it must be above 0 and at most 1")
        dims = int(self.head_width * self.rope_fraction)
        if dims % 2 or not dims:
            turned = (
                "d_model / n_heads" if self.rope_fraction == 1 and not self.head_dim else "what is turned of a head"
            )
            raise ValueError(f"positions 'rotary' turns pairs: {turned} is {dims}, odd")
        if self.rope_scaling not in (None, *get_args(RopeScaling)):
            allowed = ", ".join(get_args(RopeScaling))
            raise ValueError(f"rope_scaling is {self.rope_scaling!r}: choose one of {allowed}, or null")
        if not 1 <= self.rope_factor <= 1e6 or (self.rope_factor > 1 and self.rope_scaling is None):
            raise ValueError(
                f"rope_factor is {self.rope_factor}: it must be from 1 to 1,000,000, and above 1 needs a rope_scaling"
            )
        if self.rope_scaling in ("yarn", "llama3") and self.rope_original_len is None:
            raise ValueError(f"rope_scaling {self.rope_scaling!r} needs rope_original_len, the context of the training")
        if self.rope_scaling == "ntk" and dims == 2:
            raise ValueError("rope_scaling 'ntk' needs more than one pair of dimensions in a head")

    def _check_window(self) -> None:
        window, dilation, pattern = self.window, self.dilation, self.window_pattern
        if isinstance(window, list) and len(window) != getattr(self, "n_layers", None):
            raise ValueError(f"window is {window}: it must be one number, or one for each of the n_layers blocks")
        if window is not None and not all(type(n) is int and 0 <= n < 1 << 31 for n in _listed(window)):
            raise ValueError(f"window is {window}: it must be of whole numbers of at least 0 and below 2^31")
        if pattern is not None and (not pattern or set(pattern) - {"L", "G"} or not isinstance(window, int)):
            raise ValueError(f"window_pattern is {pattern!r}: it must be of L and G, as LLG, and window one number")
        if isinstance(dilation, list) and len(dilation) != self.n_heads:
            raise ValueError(f"dilation is {dilation}: it must be one number, or one for each of {self.n_heads} heads")
        if min(_listed(dilation)) < 1:
            raise ValueError(f"dilation is {dilation}: it must be at least 1")
        if window is None and max(_listed(dilation)) > 1:
            raise ValueError(f"dilation is {dilation}: it widens a window, and window is null")

    def _check_kernel(self) -> None:
        kernel, window, dilation = self.attention, self.window, self.dilation
        if kernel not in KERNELS:
            raise ValueError(f"attention is {kernel!r}: choose one of {', '.join(KERNELS)}")
        if kernel == "sliding_window" and window is None:
            raise ValueError("attention 'sliding_window' needs a window: set window to the tokens on each side")
        if kernel == "flash" and (window is not None or self.positions == "alibi"):
            raise ValueError(
                "attention 'flash' takes no window and no alibi: choose 'sliding_window', 'flex' or 'dense'"
            )
        if kernel in ("flash", "flash_attn") and self.attention_softcap is not None:
            raise ValueError(
                f"attention_softcap is {self.attention_softcap}: attention {kernel!r} has none, choose 'dense', "
                "'sliding_window' or 'flex'"
            )
        if kernel == "flash_attn" and max(_listed(dilation)) > 1:
            raise ValueError(f"dilation is {dilation}: attention 'flash_attn' has none, choose 'sliding_window'")
        if kernel == "flex" and self.attention_dropout:
            raise ValueError(f"attention_dropout is {self.attention_dropout}: attention 'flex' has none, set it to 0")


def _listed(value: Any) -> list[int]:
    return value if isinstance(value, list) else [value]
