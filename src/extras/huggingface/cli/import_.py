"""import: a model in HuggingFace's format, from a folder or the hub, as a checkpoint of this project."""

from pathlib import Path

from src.cli.parser import VerbParser
from src.cli.starting_point import check_output, save_starting_point
from src.extras.huggingface.hub import locate
from src.extras.huggingface.importing import import_folder


def parser() -> VerbParser:
    """The options of `import`."""
    options = VerbParser(prog="python -m src import", description=__doc__)
    options.add_argument(
        "--from", required=True, dest="source", metavar="NAME", help="a folder, or a model on the HuggingFace hub"
    )
    options.add_argument("--output", required=True, type=Path, metavar="PATH", help="the checkpoint to write: x.ckpt")
    options.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a model on the hub")
    return options


def main(arguments: list[str]) -> None:
    """Write the checkpoint, its tokenizer, and a configuration to lay over one that is to start from it.

    Raises:
        InputError: a bad option, a model that cannot be read, or one that has no counterpart here.
    """
    options = parser().parse_args(arguments[1:])
    output: Path = options.output
    check_output(output)
    content, layer, notes = import_folder(locate(options.source, options.revision), options.source)
    save_starting_point(content, layer, output)
    n = sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in content["state_dict"].values()}.values())
    print(f"wrote {output}: a {content['architecture']} of {n:,} parameters out of {options.source}")
    for note in notes:
        print(f"note: {note}")
    print(f"to train from it, lay {output.with_suffix('.yaml')} over a configuration: --config ... --config ...")
