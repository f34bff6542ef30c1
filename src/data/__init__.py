"""The LightningDataModules and their parts. Knows no model."""

from src.data.datamodule import TextDataModule
from src.data.language_modeling import LMDataModule

__all__ = ["LMDataModule", "TextDataModule"]
