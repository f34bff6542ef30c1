"""What the plan of a run says of its export, before anything is trained."""

from typing import Any

from src.errors import InputError
from src.extras.huggingface.adapters import adapter_of


def rows(architecture: str, config: Any) -> dict[str, str]:
    """Say why a network cannot be exported, or which of its parts HuggingFace's format leaves out."""
    try:
        adapter = adapter_of(architecture, config)
    except InputError as error:
        return {"export": f"cannot be exported to HuggingFace: {error}"}
    left_out = adapter.left_out()
    return {"export": f"to HuggingFace as {adapter.model_type}, without {' and '.join(left_out)}"} if left_out else {}
