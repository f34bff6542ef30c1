"""The entry of the bi-encoder in the registry, and how a pipeline cuts it."""

from src.architectures import Architecture
from src.distributed.stages import Inputs, Layer, State, encoder_layers, layers
from src.extras.retrieval.bi_encoder import BiEncoder, unit_vectors
from src.models import BERTConfig

ARCHITECTURES = {"bi_encoder": Architecture(BERTConfig, BiEncoder)}


@layers.register
def _(model: BiEncoder) -> list[Layer]:
    texts = ("query_", "")

    def pool(state: State, inputs: Inputs) -> State:
        return tuple(
            unit_vectors(model.encoder.final_norm(x), inputs[f"{text}attention_mask"])
            for x, text in zip(state, texts, strict=True)
        )

    return [*encoder_layers(model.encoder, texts), Layer(("encoder.final_norm",), 0, pool, ())]
