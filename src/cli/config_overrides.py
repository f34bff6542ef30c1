"""Config overrides: a checkpoint's own configuration, what changes it, and what starts from it."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from src.atomic import atomic_file
from src.checkpoint import read_header, save_checkpoint, weights_alone
from src.cli.messages import CONFIGS, called_as, is_yaml
from src.cli.verb import check_output
from src.errors import InputError
from src.files import check_new

# in a checkpoint's configuration, what belongs to the verb that wrote it and not to the run
OF_THE_VERB = ("ckpt_path", "weights_only", "verbose", "return_predictions")


def read_config(config: str) -> dict[str, Any]:
    """Read a value of ``--config``: a file's name, or YAML itself, as a checkpoint's configuration is handed on."""
    try:
        held = get_loader("yaml")(config if is_yaml(config) else Path(config).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        own = CONFIGS.parent / config
        hint = f"the project's own is {own}" if own.is_file() else f"{called_as()} fit --help lists the project's"
        raise InputError(f"--config {config}: there is no such file; {hint}") from error
    except yaml.YAMLError as error:
        raise InputError(f"--config {config} is no YAML: {str(error).replace('<unicode string>', config)}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"--config {config} cannot be read: {error}") from error
    if not isinstance(held, dict):
        raise InputError(f"--config {config} must hold YAML keys and values, as {CONFIGS.name}/gpt.yaml does")
    return held


def check_configs(configs: Iterable[str]) -> None:
    """Refuse a configuration that cannot be read, which the parser would not name; a pipe can be read once."""
    for config in configs:
        if is_yaml(config) or not Path(config).is_fifo():
            read_config(config)


def header_of(path: str, to_go_on: bool) -> dict[str, Any]:
    """Read what a checkpoint holds beside its weights; one that a run is to go on from must hold more than those."""
    header = read_header(path)
    if to_go_on and not {"loops", "lr_schedulers"} <= header.keys():  # consolidate once kept the former
        raise weights_alone(path)
    return {key: value for key, value in header.items() if key not in ("state_dict", "optimizer_states")}


def config_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration inside a checkpoint, less what belonged to the verb that wrote it."""
    return {key: value for key, value in yaml.safe_load(checkpoint["config"]).items() if key not in OF_THE_VERB}


def changes(old: Any, new: Any, key: str = "") -> list[str]:
    """List the leaves of two nested configurations that differ, as ``key: old -> new``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [line for k in keys for line in changes(old.get(k), new.get(k), f"{key}.{k}" if key else k)]
    return [] if old == new else [f"{key}: {old} -> {new}"]


def check_starting_point(output: Path) -> None:
    """Refuse an ``--output`` that :func:`save_starting_point` cannot write, or only over a file that is there."""
    check_output(output, ".ckpt")
    check_new(*map(output.with_suffix, (".ckpt", ".yaml", ".tokenizer.json", ".source_tokenizer.json")))


def save_starting_point(content: dict[str, Any], overrides: dict[str, Any], output: Path) -> None:
    """Write a checkpoint ``x.ckpt`` that training starts from, its tokenizers, and the overrides for it as ``x.yaml``.

    All of them or none: a failed write leaves nothing.

    Args:
        content: of the checkpoint.
        overrides: of a configuration, without the paths of the files.
        output: of the checkpoint.
    """
    data, texts = overrides["data"]["init_args"], {}
    for key in ("tokenizer", "source_tokenizer"):
        if key in content:
            path = output.with_suffix(f".{key}.json")
            texts[path], data[key] = content[key], str(path)
    if content.get("source_tokenizer") == content["tokenizer"]:
        data |= {"source_tokenizer": None, "joint_vocabulary": True}
    overrides["model"]["init_args"]["pretrained"] = str(output)
    texts[output.with_suffix(".yaml")] = yaml.safe_dump(overrides, sort_keys=False)
    with ExitStack() as stack:
        for path, text in texts.items():
            file = stack.enter_context(atomic_file(path))
            file.write(text.encode())
            file.flush()  # so that a full disk is met before the checkpoint has its name
        save_checkpoint(content, output)
