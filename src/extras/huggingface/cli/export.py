"""export: a checkpoint as a folder that HuggingFace's `from_pretrained` reads, and onto the hub."""

from pathlib import Path

from src.checkpoint import read_checkpoint
from src.cli.parser import VerbParser
from src.extras.huggingface.exporting import export
from src.extras.huggingface.hub import check_token, push


def parser() -> VerbParser:
    """The options of `export`."""
    options = VerbParser(prog="python -m src export", description=__doc__)
    options.add_argument("--checkpoint", required=True, metavar="PATH", help="a checkpoint of any network")
    options.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="where to write: a new folder")
    options.add_argument("--push", metavar="REPOSITORY", help="put it onto the hub as well: USER/NAME")
    return options


def main(arguments: list[str]) -> None:
    """Write the folder, whole or not at all, and push it if asked to.

    Raises:
        InputError: a bad option or checkpoint, a network without a counterpart, or a hub that refuses.
    """
    options = parser().parse_args(arguments[1:])
    if options.push:
        check_token()
    exported = export(read_checkpoint(options.checkpoint), options.output)
    print(f"wrote {options.output}: a {exported.config['architectures'][0]}")
    if options.push:
        print(f"pushed to {push(options.output, options.push)}")
