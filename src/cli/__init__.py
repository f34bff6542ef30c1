"""The command line. Nothing heavy is imported before a verb is known, so that help is instant."""

import errno
import sys
from importlib import import_module

from src.cli.messages import called_as, did_you_mean
from src.cli.verb import Verbs, call
from src.discovery import verbs
from src.errors import InputError, Preempted, RunEnded, run_sh

# verb -> (its function, what it does); the extras add theirs
VERBS: Verbs = {
    "fit": ("src.cli.training_help:main", "train the model of a configuration"),
    "validate": ("src.cli.training_help:main", "evaluate a checkpoint on the validation split"),
    "test": ("src.cli.training_help:main", "evaluate a checkpoint on the test split"),
    "predict": ("src.cli.training_help:main", "write a checkpoint's predictions for the test split"),
    "prepare": ("src.cli.training_help:main", "prepare the data of a configuration, without training"),
    "generate": ("src.cli.generate:generate", "continue prompts with a trained GPT"),
    "translate": ("src.cli.translate:translate", "translate with a trained Transformer"),
    "classify": ("src.cli.classify:classify", "find the labels of texts with a trained classifier"),
    "compare": ("src.cli.compare:compare", "compare translations by BLEU and chrF, with significance"),
    "average": ("src.cli.average:average", "average the weights of checkpoints"),
    "consolidate": ("src.cli.consolidate:consolidate", "make one file of a sharded checkpoint"),
    "fill-mask": ("src.cli.fill_mask:fill_mask", "find the words behind [MASK] with a trained BERT"),
    "embed": ("src.cli.embed:embed", "write sentence vectors of a trained BERT"),
    "extend-context": ("src.cli.extend_context:extend_context", "give a trained BERT or GPT a longer context"),
    "init": ("src.cli.init:init", "make a project of one's own of the template: the first thing in a fork"),
    "reproduce": ("src.cli.reproduce:reproduce", "start a run again, and say what differs from its record"),
    **verbs(),
}
# a full disk, a quota, a folder that may not be written, a file where a folder was meant or the other way round: what
# the user can correct, wherever the program meets it
OF_THE_USER = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
)


def main(arguments: list[str] | None = None) -> None:
    """Run a verb. Bad input ends with one line on standard error and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(VERBS, called_as()))
        print(f"Start here:             {called_as()} fit --config configs/gpt.yaml")
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
        message = _for_the_user(error)
        if message is None:
            raise
        _say("error", InputError(message))
        sys.exit(2)


def help_text(verbs: Verbs, program: str) -> str:
    """List the verbs of a program."""
    width = max(map(len, verbs))
    lines = "\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in verbs.items())
    return f"usage: {program} VERB [options]\n\n{lines}\n\nEvery option of a verb: {program} VERB --help"


def run_verb(arguments: list[str], verbs: Verbs = VERBS, program: str | None = None) -> None:
    """Run a verb, with errors left to the caller."""
    program = program or called_as()
    verb = arguments[0]
    if any("\ud800" <= character <= "\udfff" for word in arguments for character in word):
        raise InputError("the command line is not UTF-8")
    if verb not in verbs:
        hint = did_you_mean(verb, verbs) or f"; choose one of {', '.join(verbs)}"
        raise InputError(f"unknown verb {verb!r}{hint}")
    module, _, function = verbs[verb][0].partition(":")
    try:
        call(f"{program} {verb}", getattr(import_module(module), function), arguments)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "src":
            raise
        raise InputError(
            f"the package {error.name} is not installed: EXTRAS=dev {run_sh(verb)} installs all there is"
        ) from error


def _for_the_user(error: Exception) -> str | None:
    """Return a line for an error that the user can correct, wherever it was met; None for a fault of the program."""
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
