"""Real jobs of several processes over gloo, small runs of each model for them, and what those wrote."""

import csv
import faulthandler
import json
import multiprocessing
import os
import random
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only

import src.cli
from src.tokenization import train_wordpiece
from tests.conftest import WORDS

ROOT = Path(__file__).parents[2]
STEPS, HALFWAY = 10, 5
# what the first rank shows of a run, from the whole network, while no rank waits for another
SAMPLES = {
    "gpt": "TextSamples",
    "bert": "MaskFills",
    "longformer": "MaskFills",
    "transformer": "TranslationSamples",
}


def free_port() -> int:
    """A port of this machine that nothing listens on, below those that the system gives to whatever connects."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def run_job(folder: Path, commands: list[list[str]], processes: int = 2, timeout: int = 900) -> None:
    """Run command lines, one after another, in each of some processes, which find each other as those of torchrun do.

    The processes are forked where torch and Lightning are loaded already, which takes each of them seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["src.cli.training", __name__])
    started = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test"}
        place |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": 1}
        environment = {**os.environ, **{name: str(value) for name, value in place.items()}}
        started.append(context.Process(target=_run_rank, args=(commands, environment, folder / f"rank{rank}.log")))
        started[-1].start()
    try:
        for process in started:
            process.join(timeout)
        statuses = [process.exitcode for process in started]
    finally:
        for process in started:
            process.kill()
    logs = "\n".join((folder / f"rank{rank}.log").read_text()[-6000:] for rank in range(processes))
    assert not any(status != 0 for status in statuses), f"exit statuses {statuses}\n{logs}"


def _run_rank(commands: list[list[str]], environment: dict[str, str], log: Path) -> None:
    """One of the processes; its status is that of the first command that fails."""
    os.chdir(ROOT)
    os.environ.update(environment)
    # whatever they were loaded with
    torch.set_num_threads(1)
    rank_zero_only.rank = int(environment["RANK"])
    with log.open("w") as file:
        for output in (1, 2):
            os.dup2(file.fileno(), output)
    faulthandler.enable()
    for arguments in commands:
        try:
            src.cli.main(arguments)
        except SystemExit as end:
            if end.code:
                print("failed:", " ".join(arguments), file=sys.stderr)
                raise


def losses(run: Path, name: str = "train/loss") -> list[float]:
    """A metric at each step that it was logged at."""
    with (run / "metrics.csv").open() as rows:
        return [float(row[name]) for row in csv.DictReader(rows) if row.get(name)]


def _text(path: Path, n: int) -> Path:
    """Documents of sentences, with blank lines between them."""
    rng = random.Random(0)
    sentence = lambda: " ".join(rng.choices(WORDS, k=rng.randint(4, 9))).capitalize() + "."  # noqa: E731
    path.write_text("\n\n".join(" ".join(sentence() for _ in range(8)) for _ in range(n)))
    return path


def _pairs(folder: Path) -> Path:
    """Words of one length and their reverse, so that batches of as many tokens are the same rows on 1 and 2 ranks."""
    rng = random.Random(0)
    folder.mkdir()
    for split, n in (("train", 96), ("validation", 13), ("test", 13)):
        words = ["".join(rng.choices("abcdefgh", k=7)) for _ in range(n)]
        for language, step in (("forward", 1), ("backward", -1)):
            (folder / f"{split}.{language}").write_text("".join(word[::step] + "\n" for word in words))
    return folder


def write_config(kind: str, root: Path, tie: bool = True) -> Path:
    """A small network of a kind and its data; ``batch`` rows, or tokens, are named by :func:`batch_option`."""
    shape: dict[str, Any] = {"max_seq_len": 32, "d_model": 16, "n_heads": 2, "dropout": 0.0, "attention_dropout": 0.0}
    if kind == "gpt":
        model = ("GPTModule", {**shape, "n_layers": 2, "tie_embeddings": tie})
        data = ("LMDataModule", {"source": str(_text(root / "text.txt", 60)), "tokenizer": "char", "seq_len": 16})
    elif kind == "bert":
        model = ("BERTModule", {**shape, "n_layers": 2})
        source = {"source": str(_text(root / "text.txt", 60)), "tokenizer_vocab_size": 120, "seq_len": 32}
        data = ("MLMDataModule", source)
    elif kind == "bert_classifier":
        model = ("ClassificationModule", {**shape, "n_layers": 2})
        texts = _text(root / "text.txt", 60).read_text().split("\n\n")
        rows = [json.dumps({"text": text, "label": "ab"[i % 2]}) for i, text in enumerate(texts)]
        (root / "rows.jsonl").write_text("\n".join(rows))
        train_wordpiece(texts, 120).save(str(root / "tokenizer.json"))
        source = {"source": str(root / "rows.jsonl"), "tokenizer": str(root / "tokenizer.json"), "seq_len": 32}
        data = ("ClassificationDataModule", source)
    elif kind == "longformer":
        # another dilation for each head, which another rank has under tensor parallelism
        window = {"window": 3, "dilation": [1, 2], "global_tokens": [0, 4]}
        model = ("LongformerModule", {**shape, "n_layers": 2, **window})
        source = {"source": str(_text(root / "text.txt", 60)), "tokenizer_vocab_size": 120, "seq_len": 32}
        data = ("MLMDataModule", {**source, "next_sentence": False})
    else:
        # gated: two projections that are cut alike
        layers = {"n_encoder_layers": 1, "n_decoder_layers": 1, "tie_embeddings": tie, "activation": "swiglu"}
        model = ("TransformerModule", {**shape, **layers})
        languages = {"source_language": "forward", "target_language": "backward", "joint_vocabulary": tie}
        source = {"source": str(_pairs(root / "pairs")), "tokenizer": "char", "max_length": 16, **languages}
        data = ("TranslationDataModule", {**source, "eval_max_tokens": 32})
    if kind in ("gpt", "bert", "longformer"):
        data[1]["document_separator"] = "\n\n"
    if kind != "transformer":
        data[1].update({"validation_fraction": 0.1, "eval_batch_size": 3})
    shown = (SAMPLES.get(kind), "AttentionMaps", "TokenEmbeddings")
    settings = {
        "experiment": kind,
        "model": {
            "class_path": model[0],
            "init_args": {
                "config": model[1],
                "optimizer": {"class_path": "AdamW", "init_args": {"lr": 1e-2}},
                "schedule": {"class_path": "Cosine", "init_args": {"warmup_steps": 2}},
            },
        },
        "data": {"class_path": data[0], "init_args": {**data[1], "cache_dir": str(root / "cache")}},
        "checkpoint": {
            "filename": "{step}",
            "every_n_train_steps": HALFWAY,
            "save_top_k": -1,
            "monitor": None,
            "save_last": True,
        },
        "trainer": {
            "max_steps": STEPS,
            "val_check_interval": HALFWAY * 2,  # batches: two to a step
            "check_val_every_n_epoch": None,
            "accumulate_grad_batches": 2,
            "gradient_clip_val": 0.3,
            "log_every_n_steps": 1,
            "accelerator": "cpu",
            "precision": "32-true",
            "callbacks": [{"class_path": name} for name in shown] if kind in SAMPLES else [],
        },
    }
    path = root / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def fit(config: Path, logs: Path, kind: str, ranks: int = 1, *more: str) -> list[str]:
    """The command of a run; ``ranks`` is how many share a global batch."""
    size = (64 if kind == "transformer" else 8) // ranks
    option = "max_tokens" if kind == "transformer" else "batch_size"
    return ["fit", "--config", str(config), *more, "--trainer.default_root_dir", str(logs), f"--data.{option}={size}"]
