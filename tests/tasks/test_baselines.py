"""What each task's figures are printed beside: numbers against counts by loops, and what a run says of them."""

import json
import math
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import sacrebleu
import yaml

from src.callbacks.summary import shortfalls
from src.cli.check_fit import CheckingCLI
from src.data import Baselines
from src.tokenization import bert_ids
from tests.data.test_baselines import bigram_of, unigram_of
from tests.distributed.jobs import write_config


def made(config: Path):
    """The task and the data of a configuration, as a trainer has them."""
    parsed = CheckingCLI("fit", ["fit", "--config", str(config)])
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.datamodule, parsed.model.trainer = parsed.datamodule, trainer
    return parsed.model, parsed.datamodule


def nats(probabilities) -> float:
    return -sum(map(math.log, probabilities)) / len(probabilities)


def test_gpt(tmp_path):
    task, data = made(write_config("gpt", tmp_path))
    train, validation = (data.dataset(split).ids.tolist() for split in ("train", "validation"))
    single, after = unigram_of(train[1:], data.vocab_size), bigram_of(list(pairwise(train)), data.vocab_size)
    losses = {
        "uniform": math.log(data.vocab_size),
        "unigram": nats([single[token] for token in validation[1:]]),
        "bigram": nats([after(*pair) for pair in pairwise(validation)]),
    }
    found, note = task.baselines()
    assert list(found) == list(losses)
    for model, loss in losses.items():
        bits = loss / math.log(2) * (len(validation) - 1) / data.info["validation"]["bytes"]
        expected = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": bits}
        assert found[model] == pytest.approx(expected, rel=1e-5)
    assert note == ""


@pytest.mark.parametrize("kind", ["bert", "longformer"])
def test_masked_words(kind, tmp_path):
    task, data = made(write_config(kind, tmp_path))
    special = set(bert_ids(data.tokenizer).values())
    stored = [np.load(data.folder / f"{split}.tokens.npy") for split in ("train", "validation")]
    train, validation = ([token for token in ids.tolist() if token not in special] for ids in stored)
    loss = nats([unigram_of(train, data.vocab_size)[token] for token in validation])
    (most_frequent, _), *_ = sorted(Counter(train).items(), key=lambda pair: (-pair[1], pair[0]))
    right = validation.count(most_frequent)
    uniform = {"mlm_loss": math.log(data.vocab_size), "mlm_perplexity": data.vocab_size}
    unigram = {"mlm_loss": loss, "mlm_perplexity": math.exp(loss), "mlm_accuracy": right / len(validation)}
    expected = {"uniform": {**uniform, "mlm_accuracy": 1 / data.vocab_size}, "unigram": unigram}
    coin = math.log(2) if kind == "bert" else 0
    for figures in expected.values():
        figures["loss"] = figures["mlm_loss"] + coin
        figures.update({"nsp_loss": coin} if coin else {})
    if kind == "bert":
        labels = [int(label) for batch in data.val_dataloader() for label in batch["next_sentence_label"]]
        labels = [label for label in labels if label >= 0]
        expected["majority"] = {"nsp_accuracy": max(labels.count(0), labels.count(1)) / len(labels)}
    found = task.baselines().figures
    assert found.keys() == expected.keys()
    for model, figures in expected.items():
        assert found[model] == pytest.approx(figures)


def test_translation(tmp_path):
    task, data = made(write_config("transformer", tmp_path))
    pairs = {"train": [], "validation": []}
    for split, held in pairs.items():
        rows = data.dataset(split)
        for i in range(len(rows)):
            row = rows.__getitems__([(0, i)])
            held += zip(row["decoder_input_ids"][0].tolist(), row["labels"][0].tolist(), strict=True)
    single = unigram_of([token for _, token in pairs["train"]], data.vocab_size)
    after = bigram_of(pairs["train"], data.vocab_size)
    losses = {
        "uniform": math.log(data.vocab_size),
        "unigram": nats([single[token] for _, token in pairs["validation"]]),
        "bigram": nats([after(*pair) for pair in pairs["validation"]]),
    }
    found = task.baselines().figures
    for model, loss in losses.items():
        assert found[model] == pytest.approx({"loss": loss, "perplexity": math.exp(loss)})
    sources, references = (
        (tmp_path / f"pairs/validation.{name}").read_text().splitlines() for name in ("forward", "backward")
    )
    scores = {
        "bleu": sacrebleu.corpus_bleu(sources, [references]),
        "chrf": sacrebleu.corpus_chrf(sources, [references]),
    }
    assert found["copied_source"] == pytest.approx({name: score.score for name, score in scores.items()})


def test_classification(tmp_path):
    settings = yaml.safe_load(write_config("bert", tmp_path).read_text())
    _, texts = made(tmp_path / "bert.yaml")
    rows = [{"text": f"The cat {i}.", "label": ("no", "yes", "no", "perhaps")[i * i % 4]} for i in range(60)]
    rows += [{"text": f"A dog {i}.", "label": "perhaps"} for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings["model"]["class_path"] = "ClassificationModule"
    named = {"tokenizer": str(texts.folder / "tokenizer.json"), "source": str(tmp_path / "rows.jsonl")}
    settings["data"] = {
        "class_path": "ClassificationDataModule",
        "init_args": {**named, "seq_len": 16, "cache_dir": str(tmp_path / "cache")},
    }
    (tmp_path / "fine.yaml").write_text(yaml.safe_dump(settings))
    task, data = made(tmp_path / "fine.yaml")
    train, validation = (data.dataset(split).labels.tolist() for split in ("train", "validation"))
    majority = max(range(3), key=train.count)
    frequencies = unigram_of(train, 3)
    loss = nats([frequencies[label] for label in validation])
    found = task.baselines().figures
    assert found["uniform"] == pytest.approx({"loss": math.log(3), "accuracy": 1 / 3})
    assert found["majority"] == pytest.approx({"loss": loss, "accuracy": validation.count(majority) / len(validation)})


# ---- what a run says


def columns(out: str) -> dict[str, list[float]]:
    """The printed numbers of each metric."""
    rows = re.findall(r"^ *val/(\w+)((?: +[\d.]+)+) *$", out, re.M)
    return {name: [float(number) for number in numbers.split()] for name, numbers in rows}


@pytest.fixture
def regular(config, tmp_path):
    """A text whose every other letter is a toss-up after the one before it, and certain from all those before."""
    text = tmp_path / "regular.txt"
    text.write_text("\n\n".join(("xa" if i % 2 else "xb") * 60 for i in range(40)), encoding="utf-8")
    return ("fit", "--config", config, "--data.source", text, "--trainer.callbacks", "null")


def test_a_run_that_has_learnt_nothing_says_so_and_one_that_has_does_not(run, regular):
    untrained = ("--trainer.max_steps", 1, "--model.optimizer.lr", 0)
    trained = ("--trainer.max_steps", 120, "--trainer.val_check_interval", 120, "--model.optimizer.lr", 0.02)
    numbers, lines = {}, {}
    for name, options in (("untrained", untrained), ("trained", trained)):
        status, out, err = run(*regular, *options)
        assert status == 0, err
        assert re.search(r"^Result *\n +this run +uniform +unigram +bigram *$", out, re.M)
        printed = columns(out)
        assert list(printed) == ["loss", "perplexity", "bits_per_byte"]
        numbers[name] = printed["perplexity"]
        lines[name] = [line.strip() for line in out.splitlines() if "baseline" in line]
    mine, *counted, bigram = numbers["untrained"]
    assert numbers["trained"][1:] == [*counted, bigram]
    assert mine > bigram > numbers["trained"][0]
    said = f"val/perplexity {mine:.4f} is no better than the bigram baseline's {bigram:.4f}"
    assert lines == {"untrained": [f"{said}: the network has not learnt more than that"], "trained": []}


def test_figures_of_a_part_of_the_split_are_not_passed_off_as_comparable(run, config):
    status, out, err = run("fit", "--config", config, "--trainer.limit_val_batches", 1)
    assert status == 0, err
    assert "the baselines are of the whole validation split, this run's metrics of its first batches" in out


def test_a_run_falls_short_of_the_best_baseline_whichever_way_is_better():
    figures = {"uniform": {"perplexity": 9.0, "accuracy": 0.5}, "majority": {"accuracy": 0.6}, "other": {"bleu": 3.0}}
    baselines = Baselines(figures)
    assert shortfalls({"perplexity": 8.9, "accuracy": 0.61, "bleu": 3.1}, baselines) == []
    short = shortfalls({"perplexity": 9.0, "accuracy": 0.55, "bleu": math.nan}, baselines)
    assert [line.split(":")[0] for line in short] == [
        "val/perplexity 9.0000 is no better than the uniform baseline's 9.0000",
        "val/accuracy 0.5500 is no better than the majority baseline's 0.6000",
        "val/bleu nan is no better than the other baseline's 3.0000",
    ]
    assert shortfalls({"perplexity": math.inf}, Baselines({})) == []
