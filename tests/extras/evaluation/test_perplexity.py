"""Perplexity: each token is predicted once, from as long a context as was asked for, as the network itself does."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from src.extras.evaluation.scoring import Window, log_likelihoods, sliding_windows
from tests.extras.evaluation.conftest import sentence
from tests.random_networks import BPE, checkpoint_of


@pytest.mark.parametrize(
    ("n", "length", "stride"), [(1, 8, 3), (7, 8, 8), (8, 8, 4), (50, 8, 3), (50, 8, 1), (50, 7, 7)]
)
def test_each_token_is_predicted_once_with_the_context_that_there_is(n, length, stride):
    ids, predicted = list(range(100, 100 + n)), []
    for number, (context, targets) in enumerate(sliding_windows(ids, 7, length, stride)):
        row = [7, *ids]
        end = len(predicted) + len(targets)
        assert [*context, *targets] == row[end - len(targets) - len(context) + 1 : end + 1]
        assert len(context) + len(targets) - 1 <= length
        if number:
            assert len(targets) <= stride
            assert len(context) > length - stride
        predicted += targets
    assert predicted == ids


@pytest.mark.parametrize("name", ["gpt", "gpt with rotary positions", "gpt untied"])
def test_batches_with_padding_score_as_each_text_alone(name):
    model, _ = checkpoint_of(name)
    ids = torch.randint(300, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    windows = [*sliding_windows(ids, 0, 24, 5), *sliding_windows(ids[:9], 0, 24, 24)]
    with torch.no_grad():
        for (score, greedy), (context, targets) in zip(log_likelihoods(model, windows, 4), windows, strict=True):
            logits = model(torch.tensor([[*context, *targets][:-1]]))[0, -len(targets) :]
            expected = cross_entropy(logits, torch.tensor(targets), reduction="sum")
            assert score == pytest.approx(-expected.item(), abs=1e-4)
            assert greedy == (logits.argmax(-1).tolist() == targets)
            (likeliest,) = log_likelihoods(model, [Window(context, [logits[0].argmax().item()])], 1)
            assert likeliest[1]


def test_the_figures_are_those_of_the_text(evaluate, in_folder):
    text = "\n".join(sentence(i) for i in range(12)) + "\nnaïve\n"
    (in_folder / "text.txt").write_text(text, encoding="utf-8")
    model, _ = checkpoint_of("gpt")
    ids = BPE.encode(text).ids
    losses = []
    for i in range(len(ids)):  # a stride of 1: each from the 24 tokens before it
        context = [BPE.token_to_id("<|endoftext|>"), *ids][max(0, i - 23) : i + 1]
        with torch.no_grad():
            losses.append(-model(torch.tensor([context]))[0, -1].log_softmax(-1)[ids[i]].item())
    record, _ = evaluate("gpt", "--suite", "perplexity", "--input", "text.txt", "--stride", 1, "--batch-size", 64)
    total, found = sum(losses), {score["metric"]: score["value"] for score in record["scores"]}
    assert found == pytest.approx(
        {
            "loss": total / len(ids),
            "perplexity": math.exp(total / len(ids)),
            "word_perplexity": math.exp(total / len(text.split())),
            "bits_per_byte": total / math.log(2) / len(text.encode()),
        },
        rel=1e-5,
    )
    assert record["step"] == 7
    # with shorter contexts, or another text, it is computed anew
    other, _ = evaluate("gpt", "--suite", "perplexity", "--input", "text.txt", "--stride", 24)
    assert other["scores"] != record["scores"]
    (in_folder / "text.txt").write_text(text + "x", encoding="utf-8")
    _, out = evaluate("gpt", "--suite", "perplexity", "--input", "text.txt", "--stride", 24)
    assert "of another checkpoint or other settings: computed anew" in out
    # nor is what was written by half
    part = in_folder / "results/parts/text.txt.json"
    written = part.read_text()
    part.write_text(written[:40])
    evaluate("gpt", "--suite", "perplexity", "--input", "text.txt", "--stride", 24)
    assert part.read_text() == written


def test_what_cannot_be_is_refused_in_one_line(run, checkpoints, in_folder):
    (in_folder / "text.txt").write_text("the cat", encoding="utf-8")
    (in_folder / "bad.txt").write_bytes(b"caf\xe9")
    for options, message in [
        (("--input", "text.txt", "--stride", 25), "--stride 25 is more than the context of 24 tokens"),
        (("--input", "text.txt", "--stride", 0), "no whole number of at least 1"),
        (("--input", "none.txt"), "there is no file none.txt"),
        (("--input", "text.txt", "--output", "text.txt"), "Not a directory: text.txt/parts"),
        (("--input", "bad.txt"), "is not UTF-8"),
        (("--input", "text.txt", "--sride", 2), "did you mean '--stride'?"),
    ]:
        status, out, err = run("evaluate", "--checkpoint", checkpoints["gpt"], "--suite", "perplexity", *options)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
