"""The LightningDataModules and their parts. Knows no model."""

from src.data.baselines import Baselines
from src.data.classification import ClassificationDataModule
from src.data.datamodule import TextDataModule
from src.data.language_modeling import LMDataModule
from src.data.masked_language_modeling import MLMDataModule
from src.data.translation import TranslationDataModule

__all__ = [
    "Baselines",
    "ClassificationDataModule",
    "LMDataModule",
    "MLMDataModule",
    "TextDataModule",
    "TranslationDataModule",
]
