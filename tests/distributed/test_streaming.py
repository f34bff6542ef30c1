"""A stream of documents, read by two processes at once."""

import json

import yaml

from src.tokenization import byte_tokenizer
from tests.distributed.jobs import fit, run_job, write_config

DOCUMENTS, HELD_OUT, LENGTH = 60, 10, 32  # a document and its end token are LENGTH bytes


def documents(ids: list[int]) -> list[str]:
    """The texts of a stream of ids; the last may be cut off, and is left out."""
    tokenizer, texts = byte_tokenizer(), [[]]
    for token in ids:
        if token == 0:
            texts.append([])
        else:
            texts[-1].append(token)
    return [tokenizer.decode(text) for text in texts[:-1]]


def test_each_row_is_read_once_by_one_of_two_processes(tmp_path):
    """With a malformed row, so that each of them needs a copy of the file without it."""
    texts = [f"document {i:02d} ".ljust(LENGTH - 1, "x") for i in range(DOCUMENTS)]
    rows = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows[:30], "no JSON", *rows[30:]]))
    probe = {"class_path": "tests.distributed.probes.Batches", "init_args": {"folder": str(tmp_path / "ids")}}
    (tmp_path / "probe.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [probe]}}))
    seq_len, batch_size = 16, 2
    pass_of_a_rank = (DOCUMENTS - 2 * HELD_OUT) // 2 * LENGTH
    command = fit(write_config("gpt", tmp_path), tmp_path, "gpt", 1, "--config", "configs/strategy/ddp.yaml")
    command += ["--trainer.devices", "2", "--config", str(tmp_path / "probe.yaml"), "--allow_class_paths", "tests"]
    command += ["--data.source", str(tmp_path / "rows.jsonl"), "--data.tokenizer", "byte", "--data.streaming", "true"]
    command += ["--data.validation_fraction", "0.1", "--data.holdout_documents", str(HELD_OUT)]
    command += ["--data.batch_size", str(batch_size), "--trainer.accumulate_grad_batches", "1"]
    command += [
        "--trainer.max_steps",
        str(pass_of_a_rank // (seq_len * batch_size)),
        "--trainer.limit_val_batches",
        "1",
    ]
    run_job(tmp_path / "job", [command])
    read = [documents(json.loads((tmp_path / "ids" / f"{rank}.json").read_text())) for rank in (0, 1)]
    assert sorted(read[0] + read[1]) == texts[2 * HELD_OUT :]
    assert len(read[0]) == len(read[1])
    log = (tmp_path / "job/rank0.log").read_text()
    assert "1 row, no JSON (row 31: 'no JSON')" in log
