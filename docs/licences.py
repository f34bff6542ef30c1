"""Write docs/licences.md: what each installed package says of its licence.

.venv/bin/python docs/licences.py
"""

import re
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# Licences

What this project installs, with the extras `dev`, `deepspeed`, `mlflow` and `wandb`, and the licence that each package
states of itself; made by `python docs/licences.py`. The project copies none of them. Data that a user names have
licences of their own.

| package | version | licence |
| --- | --- | --- |
"""
# of packages whose metadata name none: what their licence file is
BY_FILE = {"torchao": "BSD-3-Clause"}


def licence(name: str) -> str:
    """The SPDX expression of a package, else its classifiers, else the first line of what it calls its licence."""
    metadata = distribution(name).metadata
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    stated = (metadata["License"] or "").strip().splitlines()
    found = ", ".join(c for c in classifiers if c != "OSI Approved") or (stated[0][:60] if stated else "")
    return found or BY_FILE.get(name, "not stated")


def main() -> None:
    """Go through the pins of constraints.txt, which are all that is installed."""
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    rows = [f"| {name} | {version} | {licence(name)} |" for name, version in pins]
    (ROOT / "docs/licences.md").write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
