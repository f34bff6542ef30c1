"""The entry of the bi-encoder in the registry, and where older checkpoints say that its classes are."""

from src.architectures import Architecture
from src.extras.retrieval.bi_encoder import BiEncoder
from src.models import BERTConfig, BERTEncoder

ARCHITECTURES = {
    "bi_encoder": Architecture(BERTConfig, BiEncoder, "RetrieverModule", "RetrieverDataModule", encoder=BERTEncoder)
}
# class path in a checkpoint of before -> now
MOVED = {
    f"src.{package}.{name}": f"src.extras.retrieval.{package}.{name}"
    for package, kind in (("tasks", "Module"), ("data", "DataModule"))
    for name in (f"Retriever{kind}", f"Reranker{kind}")
}
