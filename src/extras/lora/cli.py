"""lora: take an adapter out of a run's checkpoint, and merge one into the checkpoint that it was trained on."""

from pathlib import Path

from src.cli import help_text, run_verb
from src.cli.messages import called_as
from src.cli.verb import Verbs, check_output
from src.errors import InputError
from src.files import check_new

VERBS: Verbs = {
    "extract": ("src.extras.lora.cli:extract", "write the adapter of a run's checkpoint, as peft has it"),
    "merge": ("src.extras.lora.cli:merge", "merge an adapter into the checkpoint that it was trained on"),
}


def lora(arguments: list[str]) -> None:
    """Run one of its verbs."""
    program = f"{called_as()} lora"
    if not arguments[1:]:
        raise InputError(f"a verb of lora is required: one of {', '.join(VERBS)} (see {program} --help)")
    if arguments[1] in ("-h", "--help"):
        print(help_text(VERBS, program))
    else:
        run_verb(arguments[1:], VERBS, program)


def extract(checkpoint: Path, output: Path) -> None:
    """Write the adapter of a checkpoint to a folder, as HuggingFace's peft has it: some hundredths of the checkpoint.

    Args:
        checkpoint: of a run with the callback LoRA
        output: where to write: a new folder
    """
    # with torch, for which help does not wait
    from src.checkpoint import read_checkpoint
    from src.extras.lora.peft import write_adapter

    write_adapter(read_checkpoint(checkpoint), checkpoint, output)
    print(f"wrote {output}")


def merge(checkpoint: Path, adapter: Path, output: Path) -> None:
    """Merge an adapter into the weights that it was trained on, for every other verb.

    Args:
        checkpoint: that its run began from, by --model.pretrained
        adapter: the folder, of `lora extract` or of peft
        output: a new checkpoint
    """
    from src.checkpoint import read_checkpoint, save_checkpoint, without_training
    from src.extras.lora.peft import merge_adapter

    check_output(output, ".ckpt")
    check_new(output)
    content = read_checkpoint(checkpoint)
    merge_adapter(content, checkpoint, adapter)
    save_checkpoint(without_training(content), output)
    print(f"wrote {output}")
