"""A translation task that is learnt in seconds: words of random letters, backwards."""

import random
from pathlib import Path
from typing import Any

import yaml


def reversing(folder: Path, n: int, letters: str, longest: int) -> Path:
    """Aligned files of ``n`` training pairs, 200 for validation and 60 for testing."""
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", n), ("validation", 200), ("test", 60)):
        words = ["".join(rng.choices(letters, k=rng.randint(1, longest))) for _ in range(count)]
        for language, step in (("forward", 1), ("backward", -1)):
            text = "".join(word[::step] + "\n" for word in words)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    return folder


def reversing_config(folder: Path, root: Path, steps: int) -> Path:
    """A configuration that trains a small Transformer on them."""
    settings: dict[str, Any] = {
        "experiment": "reverse",
        "model": {
            "class_path": "TransformerModule",
            "init_args": {
                "config": {
                    "max_seq_len": 64,
                    "d_model": 64,
                    "n_heads": 4,
                    "n_encoder_layers": 1,
                    "n_decoder_layers": 1,
                    "dropout": 0.0,
                    "norm": "pre",
                },
                "optimizer": {"class_path": "Adam", "init_args": {"lr": 3e-3}},
                "schedule": {"class_path": "Cosine", "init_args": {"warmup_steps": 50}},
            },
        },
        "data": {
            "class_path": "TranslationDataModule",
            "init_args": {
                "source": str(folder),
                "source_language": "forward",
                "target_language": "backward",
                "tokenizer": "char",
                "max_length": 32,
                "max_ratio": 9,
                "max_tokens": 512,
                "cache_dir": str(root / "cache"),
            },
        },
        "trainer": {
            "max_steps": steps,
            "val_check_interval": steps,
            "check_val_every_n_epoch": None,
            "gradient_clip_val": 1.0,
            "accelerator": "cpu",
            "precision": "32-true",
            "default_root_dir": str(root / "logs"),
        },
    }
    path = root / "reverse.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path
