"""The help of a configuration: the options of the classes that it names, with its own values as their defaults."""

import argparse
import sys
from typing import Any

import lightning as L
from jsonargparse import ArgumentParser, Namespace
from jsonargparse._util import import_object
from lightning.pytorch.cli import LightningArgumentParser

from src.callbacks import Checkpoints, Guard, HParams
from src.cli.messages import called_as, is_yaml, values_of
from src.cli.training import TrainingCLI
from src.cli.training_help import help_asked, rest_of_help

CLASSES = {"trainer": L.Trainer, "checkpoint": Checkpoints, "guard": Guard, "hparams": HParams}
LINKED = ("model.config.vocab_size", "data.seed")  # not set by the user: they come from the tokenizer and the seed


class HelpCLI(TrainingCLI):
    """Everything up to the configuration, and its help."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        asked = help_asked(args)
        if values_of(("--config", "-c"), args):
            super().parse_arguments(parser, [word for word in args if not help_asked([word])])
            settings = self.config[self.verb]
        else:
            settings = self._parser(self.verb).get_defaults()
        if "help" in asked:
            paths = values_of(("--config", "-c"), self.arguments)
            configs = "".join(f" --config {path}" for path in paths if not is_yaml(path))
            print(f"usage: {called_as()} {self.verb}{configs} [--OPTION VALUE ...]\n")
            print("\n".join([*class_help("model", settings.model), *class_help("data", settings.data), rest_of_help()]))
        else:
            print("\n".join(group_help(CLASSES[group], group, dict(settings[group].items())) for group in asked))
        sys.exit()


def class_help(key: str, setting: Namespace) -> list[str]:
    """Describe the options of the class that a configuration names under a key, and of those that are its arguments."""
    values = setting.init_args
    inner = {name: value for name, value in values.items(branches=True) if "." not in name and is_class(value)}
    own = {name: value for name, value in values.items() if name.partition(".")[0] not in inner}
    named = {name: value.class_path for name, value in inner.items()}
    text = group_help(import_object(setting.class_path), key, {**own, **named})
    return [text, *(part for name, value in inner.items() for part in class_help(f"{key}.{name}", value))]


def is_class(value: Any) -> bool:
    """Whether a setting names a class and its arguments."""
    return isinstance(value, Namespace) and "class_path" in value and "init_args" in value


def group_help(kind: type, key: str, values: dict[str, Any]) -> str:
    """Describe the options of a class under a key, with these values, by their dotted names, as defaults."""
    parser = ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
    parser.add_class_arguments(kind, key, fail_untyped=False)
    known = {action.dest for action in parser._actions}
    parser.set_defaults({f"{key}.{name}": value for name, value in values.items() if f"{key}.{name}" in known})
    names = {name.partition(".")[0] for name in values}
    for action in parser._actions:
        name = action.dest.removeprefix(f"{key}.").partition(".")[0]
        if action.metavar == "CONFIG" or action.dest in LINKED or name not in names:
            action.help = argparse.SUPPRESS
        action.required = False  # the configuration has it
    groups = parser.groups or {}
    for name, group in groups.items():
        group.title = f"--{name} {kind.__name__ if name == key else ''}".strip() + f": {group.title}"
    # the shape of a network first
    parser._action_groups = sorted(parser._action_groups, key=lambda group: group is groups[key])
    return parser.format_help()
