"""serve from the command line: how it begins and ends, and pages that need no internet."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.checkpoint import save_checkpoint
from tests.extras.serve.conftest import Server
from tests.random_networks import checkpoint_of

ROOT = Path(__file__).parents[3]


def test_what_cannot_be_served_is_refused_before_the_port_is_open(run, checkpoints, tmp_path):
    gpt = checkpoints["generate"]
    save_checkpoint(checkpoint_of("longformer")[1], tmp_path / "longformer.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, message in [
            (("--checkpoint", "nowhere.ckpt", "--port", port), "there is no checkpoint nowhere.ckpt"),
            (("--checkpoint", tmp_path / "text.ckpt", "--port", port), "is truncated or damaged"),
            (
                ("--checkpoint", checkpoints["fill-mask"], "--checkpoint", tmp_path / "longformer.ckpt"),
                "are both for fill-mask: serve one of them",
            ),
            (("--checkpoint", gpt, "--device", "gpu9"), "--device gpu9"),
            (("--checkpoint", gpt, "--port", port), f"port {port} cannot be taken"),
            (("--checkpoint", gpt, "--port", 70000), "port 70000 cannot be taken"),
            (("--checkpoint", gpt, "--timeout", 0), "--timeout: '0' is no whole number of at least 1"),
        ]:
            status, out, err = run("serve", *arguments)
            assert (status, out, err.count("\n")) == (2, "", 1), err
            assert message in err


@pytest.mark.slow
def test_a_signal_ends_it_when_what_it_answers_is_complete(checkpoints):
    program = [sys.executable, "-m", "src", "serve", "--checkpoint", checkpoints["generate"], "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = {number: subprocess.Popen(program, cwd=ROOT, **pipes) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, process in processes.items():
            server = Server(int(re.match(r"http://127\.0\.0\.1:(\d+)  generate", process.stdout.readline())[1]))
            events = server.events(text="the cat", max_new_tokens=500, temperature=0)
            next(events)
            process.send_signal(number)
            *_, (last, done) = events
            assert (last, done["tokens"]) == ("done", 500)
            _, err = process.communicate(timeout=30)
            expected = (130, "stopped\n") if number == signal.SIGINT else (-number, "")
            assert (process.returncode, err) == expected
    finally:
        for process in processes.values():
            process.kill()


def test_the_pages_and_the_interface_need_no_internet(shared):
    assert '"/api/fill-mask"' in shared.send("/openapi.json").read().decode()
    for path in ("/", "/docs"):
        page = shared.send(path)
        content = page.read().decode()
        assert page.getheader("Content-Type").startswith("text/html")
        assert "default-src 'none'" in page.getheader("Content-Security-Policy")
        assert "</html>" in content
        assert not re.search(r"(?:src|href)=\"(?!/|data:)|https?://|@import", content)


def test_idle_connections_do_not_keep_others_out(shared):
    idle = [socket.create_connection(("127.0.0.1", shared.port)) for _ in range(100)]
    started = time.monotonic()
    assert shared.ask("classify", text="the")["status"] == 200
    assert time.monotonic() - started < 30
    for connection in idle:
        connection.close()
