"""What a refusal of bad input is: one line that says what, a status, no traceback, and no file touched."""

import shutil
from pathlib import Path

import torch


class Evil:
    """A pickle that would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def changed(source: Path, target: Path, **changes: object) -> None:
    """A copy of a checkpoint with other contents; null takes a key out."""
    checkpoint = {**torch.load(source), **changes}
    torch.save({key: value for key, value in checkpoint.items() if value is not None}, target)


def tree(root: Path) -> dict[str, bytes | None]:
    """Every file and folder, but for what is prepared once and kept, and empty locks."""
    found = (path for path in root.rglob("*") if "cache" not in path.relative_to(root).parts[:1])
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in found}


def remove_new(root: Path, before: dict[str, bytes | None]) -> list[str]:
    """What a command left behind, which is taken away for the next one."""
    new = sorted(tree(root).keys() - before.keys())
    for name in new:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).unlink(missing_ok=True)
    return new


def check_refusal(run, root: Path, before: dict[str, bytes | None], command: tuple[str, ...]) -> None:
    """Run a command line in a folder that is to stay as it was before."""
    try:
        status, out, err = run(*command)
    finally:
        new = remove_new(root, before)
    assert status == 2, out + err
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    assert "Traceback" not in out + err
    assert new == []
    assert tree(root) == before
