"""export: a checkpoint as a folder that HuggingFace's `from_pretrained` reads, and onto the hub."""

from pathlib import Path

from src.checkpoint import read_checkpoint
from src.extras.huggingface import exporting
from src.extras.huggingface.hub import check_token
from src.extras.huggingface.hub import push as push_folder


def export(checkpoint: str, output: Path, push: str | None = None) -> None:
    """Write a checkpoint as a folder that HuggingFace's `from_pretrained` reads, and push it to the hub if asked to.

    Args:
        checkpoint: a checkpoint of any network
        output: where to write: a new folder
        push: put it onto the hub as well: USER/NAME
    """
    if push:
        check_token()
    exported = exporting.export(read_checkpoint(checkpoint), output)
    print(f"wrote {output}: a {exported.config['architectures'][0]}")
    if push:
        print(f"pushed to {push_folder(output, push)}")
