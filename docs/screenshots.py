"""Take a screenshot of each tab of TensorBoard, by a headless Chromium.

python -m docs.screenshots --logdir logs --output /tmp/pictures        needs chromium, as Debian's package of that name
"""

import argparse
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image

TABS = ("timeseries", "scalars", "custom_scalars", "images", "text", "projector", "hparams")
CHROMIUM = [
    "--headless",
    "--hide-scrollbars",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def tensorboard(logdir: str) -> Iterator[str]:
    """Start TensorBoard on a free local port, and yield its address once it has read the runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", port, "--logdir", logdir]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                with urlopen(f"{address}/data/runs", timeout=5) as answer:
                    if len(answer.read()) > len("[]\n"):
                        break
            except (URLError, OSError):
                continue
        else:
            sys.exit(f"error: TensorBoard found no run in {logdir}")
        time.sleep(5)  # the newest of them, to the end
        yield address
    finally:
        server.terminate()
        server.wait()


def take(browser: str, address: str, path: Path, size: str, patience: int) -> None:
    """Save a screenshot of a page, in at most 128 colours."""
    with tempfile.TemporaryDirectory() as profile:
        raw = Path(profile) / "page.png"
        options = [f"--user-data-dir={profile}", f"--window-size={size}", f"--virtual-time-budget={patience * 1000}"]
        command = [browser, *CHROMIUM, *options, f"--screenshot={raw}", address]
        subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        picture = Image.open(io.BytesIO(raw.read_bytes())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size // 1024} KB")


def main() -> None:
    """Take the screenshots."""
    options = argparse.ArgumentParser(prog="python -m docs.screenshots", description=__doc__.splitlines()[0])
    options.add_argument("--logdir", default="logs", help="a folder of runs (%(default)s)")
    options.add_argument("--output", default="screenshots", help="where the pictures go (%(default)s)")
    options.add_argument("--tabs", nargs="+", default=TABS, metavar="TAB", help="which tabs, of " + ", ".join(TABS))
    options.add_argument("--size", default="1600,1000", help="of the window, in pixels (%(default)s)")
    options.add_argument("--patience", type=int, default=30, help="seconds that a page may take (%(default)s)")
    chosen = options.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("error: there is no chromium: install it, as by apt-get install chromium")
    folder = Path(chosen.output)
    folder.mkdir(parents=True, exist_ok=True)
    with tensorboard(chosen.logdir) as address:
        for tab in chosen.tabs:
            take(browser, f"{address}/#{tab}", folder / f"{tab.partition('&')[0]}.png", chosen.size, chosen.patience)


if __name__ == "__main__":
    main()
