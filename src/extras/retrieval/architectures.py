"""The entry of the bi-encoder in the registry."""

from src.architectures import Architecture
from src.extras.retrieval.bi_encoder import BiEncoder
from src.models import BERTConfig, BERTEncoder

ARCHITECTURES = {
    "bi_encoder": Architecture(BERTConfig, BiEncoder, "RetrieverModule", "RetrieverDataModule", encoder=BERTEncoder)
}
