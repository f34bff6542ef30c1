"""HuggingFace's format, in and out: one adapter an architecture, and no code of `transformers`."""

from src.hub.exporting import export
from src.hub.importing import ADAPTERS, Checkpoint, import_folder
from src.hub.remote import check_token, locate, push

__all__ = ["ADAPTERS", "Checkpoint", "check_token", "export", "import_folder", "locate", "push"]
