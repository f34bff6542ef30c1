"""The networks, one file each. Plain torch, usable without Lightning."""

from src.models.gpt import GPT, GPTConfig

# name in checkpoints -> configuration and network
ARCHITECTURES = {"gpt": (GPTConfig, GPT)}

__all__ = ["ARCHITECTURES", "GPT", "GPTConfig"]
