"""import: a model in HuggingFace's format, from a folder or the hub, as a checkpoint of this project."""

from pathlib import Path

from src.cli.config_overrides import save_starting_point
from src.cli.verb import check_output
from src.extras.huggingface.hub import locate
from src.extras.huggingface.importing import import_folder


def import_(from_: str, output: Path, revision: str | None = None) -> None:
    """Make a checkpoint of a model in HuggingFace's format, with its tokenizer, and config overrides to train from it.

    Args:
        from_: a folder, or a model on the HuggingFace hub
        output: the checkpoint to write: x.ckpt
        revision: branch, tag or commit of a model on the hub
    """
    check_output(output, ".ckpt")
    content, overrides, notes = import_folder(locate(from_, revision), from_)
    save_starting_point(content, overrides, output)
    n = sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in content["state_dict"].values()}.values())
    print(f"wrote {output}: a {content['architecture']} of {n:,} parameters out of {from_}")
    for note in notes:
        print(f"note: {note}")
    print(f"to train from it, lay {output.with_suffix('.yaml')} over a configuration: --config ... --config ...")
