"""import: a model in HuggingFace's format as a checkpoint. export: a checkpoint in HuggingFace's format."""

from pathlib import Path


def import_(from_: str, output: Path, revision: str | None = None) -> None:
    """Make a checkpoint of a model in HuggingFace's format, with its tokenizer, and config overrides to train from it.

    Args:
        from_: a folder, or a model on the HuggingFace hub
        output: a new checkpoint: x.ckpt
        revision: branch, tag or commit of a model on the hub
    """
    # with torch, for which help does not wait
    from src.cli.config_overrides import check_starting_point, save_starting_point
    from src.extras.huggingface import hub
    from src.extras.huggingface.importing import import_folder

    check_starting_point(output)
    content, overrides, notes = import_folder(hub.locate(from_, revision), from_)
    save_starting_point(content, overrides, output)
    n = sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in content["state_dict"].values()}.values())
    print(f"wrote {output}: a {content['architecture']} of {n:,} parameters out of {from_}")
    for note in notes:
        print(f"note: {note}")
    print(f"to train from it, lay {output.with_suffix('.yaml')} over a configuration: --config ... --config ...")
    lr, data = overrides["model"]["init_args"]["optimizer"]["init_args"]["lr"], overrides["data"]["init_args"]
    length = data.get("seq_len", data.get("max_length"))
    print(f"it sets the learning rate of fine-tuning, {lr:g}, its warm-up, and rows of up to {length:,} tokens")


def export(checkpoint: str, output: Path, push: str | None = None) -> None:
    """Write a checkpoint as a folder that HuggingFace's `from_pretrained` reads, and push it to the hub if asked to.

    Args:
        checkpoint: a checkpoint of any network
        output: where to write: a new folder
        push: put it onto the hub as well: USER/NAME
    """
    from src.checkpoint import read_checkpoint
    from src.extras.huggingface import exporting, hub

    if push:
        hub.check_token()
    exported = exporting.export(read_checkpoint(checkpoint), output)
    print(f"wrote {output}: a {exported.config['architectures'][0]}")
    if exported.left_out:
        parts = " and ".join(exported.left_out)
        print(f"note: the trained {parts} is left out: a {exported.config['architectures'][0]} has none")
    if push:
        print(f"pushed to {hub.push(output, push)}")
