"""The command line. Nothing heavy is imported before a verb is known, so that help is instant."""

import errno
import sys
from difflib import get_close_matches
from importlib import import_module

from src.discovery import verbs
from src.errors import InputError, Preempted, RunEnded

# verb -> (module with a function `main(arguments)`, what it does); the extras add theirs
VERBS = {
    "fit": ("src.cli.training", "train the model of a configuration"),
    "validate": ("src.cli.training", "evaluate a checkpoint on the validation split"),
    "test": ("src.cli.training", "evaluate a checkpoint on the test split"),
    "predict": ("src.cli.training", "write a checkpoint's predictions for the test split"),
    "generate": ("src.cli.generate", "continue prompts with a trained GPT"),
    "translate": ("src.cli.translate", "translate with a trained Transformer"),
    "compare": ("src.cli.compare", "compare translations by BLEU and chrF, with significance"),
    "average": ("src.cli.average", "average the weights of checkpoints"),
    "consolidate": ("src.cli.consolidate", "make one file of a sharded checkpoint"),
    "fill-mask": ("src.cli.fill_mask", "find the words behind [MASK] with a trained BERT"),
    "embed": ("src.cli.embed", "write sentence vectors of a trained BERT"),
    "extend-context": ("src.cli.extend_context", "give a trained BERT, Longformer or GPT a longer context"),
    "reproduce": ("src.cli.reproduce", "start a run again, and say what differs from its record"),
    **verbs(),
}

# a full disk, a quota, a folder that may not be written, a file where a folder was meant or the other way round: the
# user's to mend, wherever the program meets it
OF_THE_USER = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
)

HELP = """usage: python -m src VERB [options]

{verbs}

Every option of a verb: python -m src VERB --help
Start here:             python -m src fit --config configs/gpt.yaml"""


def help_text() -> str:
    """What `python -m src --help` prints."""
    width = max(map(len, VERBS))
    return HELP.format(verbs="\n".join(f"  {verb:<{width}}  {what}" for verb, (_, what) in VERBS.items()))


def main(arguments: list[str] | None = None) -> None:
    """Run a verb. Bad input ends with one line on standard error and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return
    try:
        run_verb(arguments)
    except InputError as error:
        _say("error", error)
        sys.exit(2)
    except RunEnded as end:
        # every process of the run raises it: the first speaks and has the status, the others must look well to whoever
        # started them, who would else kill the first
        if _is_first():
            _say("stopped" if isinstance(end, Preempted) else "error", end)
        sys.exit(end.status if _is_first() else 0)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has gone: not a fault
        sys.stderr.close()
        sys.exit(141)
    except (OSError, MemoryError, RuntimeError) as error:
        said = _for_the_user(error)
        if said is None:
            raise
        _say("error", InputError(said))
        sys.exit(2)


def run_verb(arguments: list[str]) -> None:
    """Run a verb, with errors left to the caller.

    Raises:
        InputError: there is no such verb, one of its packages is not installed, or its input is bad.
    """
    module = _module(arguments)
    try:
        if module != "src.cli.training":  # whose configurations have to name a module as well
            arguments = _with_own_modules(arguments)
        import_module(module).main(arguments)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "src":
            raise
        raise InputError(
            f"the package {error.name} is not installed: EXTRAS=dev ./run.sh {arguments[0]} installs all there is"
        ) from error


def _with_own_modules(arguments: list[str]) -> list[str]:
    """Import the modules of ``--allow_class_paths``, which register architectures of one's own, and take it out."""
    option, kept, modules = "--allow_class_paths", list(arguments), []
    for i in reversed(range(len(kept))):
        if kept[i] == option and i + 1 < len(kept):
            modules.append(kept.pop(i + 1))
            del kept[i]
        elif kept[i].startswith(f"{option}="):
            modules.append(kept.pop(i).partition("=")[2])
    if modules:
        import_module("src.cli.class_paths").import_modules(modules)
    return kept


def _module(arguments: list[str]) -> str:
    """The module of a command line's verb."""
    if any("\ud800" <= character <= "\udfff" for word in arguments for character in word):
        raise InputError("the command line is not UTF-8")
    if arguments[0] not in VERBS:
        near = get_close_matches(arguments[0], VERBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(VERBS)}"
        raise InputError(f"unknown verb {arguments[0]!r}; {hint}")
    return VERBS[arguments[0]][0]


def _for_the_user(error: Exception) -> str | None:
    """What to tell of an error that is the user's to mend, wherever it was met; None for a fault of the program."""
    if isinstance(error, OSError) and error.errno in OF_THE_USER:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}; what was written before is as it was"
    # PyTorch has a class for the memory of a GPU, and none for that of a CPU
    is_memory = type(error).__name__ in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in str(error)
    return f"there is not enough memory ({error}): take a smaller model, batch or context" if is_memory else None


def _say(what: str, error: Exception) -> None:
    print(f"{what}: {' '.join(str(error).split())}", file=sys.stderr)


def _is_first() -> bool:
    """Whether this is the first process of the run, by Lightning's own count."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return not getattr(rank_zero_only, "rank", 0)
