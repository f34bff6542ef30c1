"""What a class name in a configuration means, where jsonargparse's own answer would surprise.

Both rules replace a function of jsonargparse by one that is handed its place; the tests hold them on every release.
"""

from typing import Any

from jsonargparse import Namespace, _typehints
from jsonargparse._util import import_object

from src.errors import InputError

_resolve = _typehints.resolve_class_path_by_name
_discard = _typehints.discard_init_args_on_class_path_change


def resolve_ours_first(cls: Any, name: str) -> str:
    """The full path of a class by its short name; of two classes of one name this project's, as `Muon` of torch's."""
    if isinstance(cls, type) and "." not in name:
        paths = [path for path in _typehints.get_all_subclass_paths(cls) if path.startswith("src.")]
        found = [path for path in paths if path.rpartition(".")[2] == name]
        if len(found) == 1:
            return found[0]
    return _resolve(cls, name)


def forget_arguments_of_another_class(parser_or_action: Any, previous: Any, value: Any) -> None:
    """Let a class that takes another's place start from its own defaults.

    Where both have an argument, jsonargparse would keep its value: SGD in place of AdamW would decay the weights as
    AdamW did, which nobody has asked for. A class of one's own keeps the arguments of the parent that it extends.
    """
    if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        if not value["class_path"].startswith("src."):
            own, parent = import_object(value["class_path"]), import_object(previous["class_path"])
            if issubclass(own, parent) and parent.__module__.startswith("src."):
                _discard(parser_or_action, previous, value)
                return
        previous["init_args"] = Namespace() if isinstance(previous, Namespace) else {}


def check_order(arguments: list[str]) -> None:
    """Refuse a class named after its own arguments, which it would forget.

    Raises:
        InputError: naming both.
    """
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    keys = [option.replace(".init_args", "") for option in options]
    for i, key in enumerate(keys):
        for later, option in zip(keys[i + 1 :], options[i + 1 :], strict=True):
            if key.startswith(f"{later}."):
                raise InputError(f"{options[i]} stands before {option}, which starts from its own defaults: swap them")


def install() -> None:
    """Put both rules in place."""
    _typehints.resolve_class_path_by_name = resolve_ours_first
    _typehints.discard_init_args_on_class_path_change = forget_arguments_of_another_class
