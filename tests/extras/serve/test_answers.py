"""What the server answers is what the verbs print, whatever requests come together."""

import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from src.decoding import decode_continuation, generate
from tests.conftest import WORDS
from tests.extras.serve.conftest import serving


def continued(services, text: str, max_new_tokens: int) -> str:
    """The greedy continuation of a prompt alone, by the function behind the verb."""
    writer = services["generate"].writer
    prompt = writer.encode(text)
    settings = {"max_new_tokens": max_new_tokens, "temperature": 0.0, "eos_id": writer.eos}
    (ids,) = generate(writer.model, [prompt], **settings)
    return decode_continuation(writer.tokenizer, prompt, ids)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 5}, {"seed": 5, "top_k": 3, "top_p": 0.9}])
def test_generate_is_the_verb(run, shared, checkpoints, options):
    flags = [str(part) for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    length = ("--max-new-tokens", 40)  # more than the context
    _, printed, _ = run("generate", "--checkpoint", checkpoints["generate"], "--prompt", "the cat", *length, *flags)
    answer = shared.ask("generate", text="the cat", max_new_tokens=40, **options)
    assert f"the cat{answer['text']}\n" == printed
    *pieces, (last, done) = shared.events(text="the cat", max_new_tokens=40, **options)
    assert {name for name, _ in pieces} == {"text"}
    assert last == "done"
    assert "".join(piece["text"] for _, piece in pieces) == done["text"] == answer["text"]
    assert len(pieces) > 3


@pytest.mark.parametrize("beam", [1, 3])
def test_translate_is_the_verb(run, shared, checkpoints, beam):
    lines = ["the cat sat", "", "seven grey dogs ran over old bridges"]
    flags = [part for line in lines for part in ("--text", line)]
    _, printed, _ = run("translate", "--checkpoint", checkpoints["translate"], *flags, "--beam", beam)
    answer = shared.ask("translate", text="\n".join(lines), beam=beam)
    assert answer["status"] == 200
    assert [line.split() for line in answer["text"].split("\n")] == [line.split() for line in printed.split("\n")[:-1]]


def test_fill_mask_and_classify_are_the_verbs(run, shared, checkpoints):
    text = "the [MASK] sat on a [MASK]"
    _, printed, _ = run("fill-mask", "--checkpoint", checkpoints["fill-mask"], "--text", text, "--top-k", 2)
    (first, second) = shared.ask("fill-mask", text=text, top_k=2)["masks"]
    found = [f"{c['probability']:.4f}  {c['name']}" for c in (*first, *second)]
    assert found == [line for line in printed.splitlines() if not line.startswith("[MASK]")]
    _, printed, _ = run("classify", "--checkpoint", checkpoints["classify"], "--text", "nobody said one word")
    labels = shared.ask("classify", text="nobody said one word")["labels"]
    assert "\t".join(f"{c['name']}\t{c['probability']:.4f}" for c in labels) == printed.rstrip("\n")


def test_200_requests_of_8_clients_at_once_are_answered_as_each_alone(services, shared):
    """Prompts of all lengths, and answers within the context and beyond it."""
    draw = random.Random(0)
    kinds = [(" ".join(draw.choices(WORDS, k=draw.randint(0, 4))), draw.choice([1, 5, 9, 17, 30])) for _ in range(40)]
    alone = {kind: continued(services, *kind) for kind in kinds}
    asked = draw.choices(kinds, k=200)
    with ThreadPoolExecutor(8) as clients:
        answers = clients.map(
            lambda one: shared.ask("generate", text=one[0], max_new_tokens=one[1], temperature=0), asked
        )
    for kind, answer in zip(asked, answers, strict=True):
        assert (answer["status"], answer["text"]) == (200, alone[kind]), kind


def test_all_tasks_at_once(shared):
    requests = [("classify", {"text": f"the {word}"}) for word in WORDS]
    requests += [("fill-mask", {"text": f"the [MASK] {word}", "top_k": i % 3 + 1}) for i, word in enumerate(WORDS)]
    requests += [("translate", {"text": f"the {word}", "beam": i % 2 + 1}) for i, word in enumerate(WORDS)]
    alone = [shared.ask(verb, **request) for verb, request in requests]
    with ThreadPoolExecutor(8) as clients:
        together = list(clients.map(lambda one: shared.ask(one[0], **one[1]), requests))

    def rounded(answer):
        return re.sub(r"\d\.\d+", lambda number: f"{float(number[0]):.4f}", str(answer))

    assert list(map(rounded, together)) == list(map(rounded, alone))


def test_no_answer_is_lost_when_a_client_leaves(services):
    """Of requests in one batch, whose first runs when they come, one leaves in the middle."""
    with serving(services) as server, ThreadPoolExecutor(8) as clients:
        first = server.events(text="the", max_new_tokens=1_000_000, temperature=0)
        next(first)
        ready = threading.Barrier(5)

        def leave() -> None:
            ready.wait()
            leaver = server.events(text="a", max_new_tokens=1_000_000, temperature=0)
            next(leaver)
            leaver.close()

        def stay(word: str) -> dict:
            ready.wait()
            return server.ask("generate", text=word, max_new_tokens=20, temperature=0)

        leaving = clients.submit(leave)
        words = ["the", "cat", "sat"]
        staying = [clients.submit(stay, word) for word in words]
        ready.wait()
        first.close()  # the batch of the others begins
        for word, answer in zip(words, staying, strict=True):
            assert answer.result(30)["text"] == continued(services, word, 20)
        leaving.result(30)
