"""A checkpoint that training starts from, with its tokenizer and a configuration to lay over one that is to use it."""

from pathlib import Path
from typing import Any

import yaml

from src.checkpoint import save_checkpoint
from src.errors import InputError


def check_output(output: Path) -> None:
    """Refuse a path that no checkpoint can be written to.

    Raises:
        InputError: it is no .ckpt file in a folder that exists.
    """
    if output.suffix != ".ckpt" or not output.parent.is_dir():
        raise InputError(f"--output {output} must be a .ckpt file in a folder that exists")


def save_starting_point(content: dict[str, Any], layer: dict[str, Any], output: Path) -> None:
    """Write ``x.ckpt``, its tokenizers beside it, and ``x.yaml``.

    Args:
        content: of the checkpoint.
        layer: the configuration, without the paths of the files.
        output: of the checkpoint.
    """
    for key in ("tokenizer", "source_tokenizer"):
        if key in content:
            path = output.with_suffix(f".{key}.json")
            path.write_text(content[key], encoding="utf-8")
            layer["data"]["init_args"][key] = str(path)
    if content.get("source_tokenizer") == content["tokenizer"]:
        layer["data"]["init_args"]["source_tokenizer"] = None
        layer["data"]["init_args"]["joint_vocabulary"] = True
    layer["model"]["init_args"]["pretrained"] = str(output)
    output.with_suffix(".yaml").write_text(yaml.safe_dump(layer, sort_keys=False), encoding="utf-8")
    save_checkpoint(content, output)
