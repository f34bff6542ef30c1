"""Search and answers of an index: what the verbs print, by HTTP and on the page. Needs the extra that makes indices."""

import pytest

import src.cli
from src.checkpoint import save_checkpoint
from src.extras.serve.services import load_services
from tests.extras.serve.browsing import asked, opened
from tests.extras.serve.conftest import serving
from tests.random_networks import checkpoint_of

pytestmark = pytest.mark.skipif("rag" not in src.cli.VERBS, reason="there is no index without the extra for retrieval")
TEXTS = {
    "cats.txt": "The cat sat on a mat. Nobody said one word.",
    "dogs.txt": "Seven grey dogs ran over old bridges.",
    "<b>stones.txt": "Old stone bridges, <img src=x onerror=alert(1)> and a mat.",
}
QUESTION = "seven grey dogs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index, the encoder it is made by, and a GPT with room for passages."""
    path = tmp_path_factory.mktemp("index")
    (path / "documents").mkdir()
    for name, text in TEXTS.items():
        (path / "documents" / name).write_text(text)
    for name in ("bert", "gpt"):
        save_checkpoint(checkpoint_of(name, max_seq_len=256)[1], path / f"{name}.ckpt")
    places = {"--input": "documents", "--output": "index", "--encoder": "bert.ckpt"}
    src.cli.main(["rag", "index", *(str(part) for option, to in places.items() for part in (option, path / to))])
    return path


@pytest.fixture(scope="module")
def server(folder):
    with serving(load_services([str(folder / "gpt.ckpt")], str(folder / "index"))) as running:
        yield running


def cited(passage) -> str:
    """A passage as the verbs print it."""
    scores = "  ".join(f"{name} {score:.4f}" for name, score in passage["scores"].items())
    return f"{passage['source']} [{passage['start']}-{passage['end']}]  {scores}"


def test_search_is_the_verb(run, folder, server):
    _, printed, _ = run("rag", "search", "--index", folder / "index", "--query", QUESTION, "--k", 2)
    passages = server.ask("search", text=QUESTION, k=2)["passages"]
    shown = [f"{i}. {cited(passage)}\n   {passage['text']}\n" for i, passage in enumerate(passages, 1)]
    assert "".join(shown) == printed
    assert {passage["source"]: passage["text"] for passage in passages}["dogs.txt"] == TEXTS["dogs.txt"]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 3, "top_k": 50}])
def test_answer_is_the_verb(run, folder, server, options):
    options = {"k": 2, "min_similarity": -1.0, "max_new_tokens": 12, **options}
    flags = [str(part) for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    places = ("--index", folder / "index", "--checkpoint", folder / "gpt.ckpt")
    _, printed, err = run("rag", "answer", *places, "--question", QUESTION, *flags)
    answer = server.ask("answer", text=QUESTION, **options)
    sources = [f"[{i}] {cited(passage)}\n" for i, passage in enumerate(answer["passages"], 1)]
    # between them the best sentences, since a network of random weights cites nothing
    assert printed.startswith(f"{answer['text']}\n"), err
    assert printed.endswith(f"\nSources:\n{''.join(sources)}"), err
    assert len(sources) == 2
    *pieces, (last, done) = server.events("answer", text=QUESTION, **options)
    assert last == "done"
    assert "".join(piece["text"] for _, piece in pieces) == done["text"] == answer["text"]
    assert len(pieces) > 3


def test_without_anything_relevant_there_is_no_answer(server):
    answer = server.ask("answer", text=QUESTION, min_similarity=1.1)
    assert answer == {"status": 200, "text": None, "passages": []}


@pytest.mark.parametrize(
    ("verb", "request_", "message"),
    [
        ("search", {"text": "?!"}, "has no words: ask for something"),
        ("search", {"text": "dogs", "k": 0}, "k: Input should be greater"),
        ("search", {"text": "dogs", "query": "dogs"}, "query: Extra inputs are not permitted"),
        ("search", {"text": "\ud800"}, "text: Input should be a valid string"),
        ("answer", {"text": "dogs", "max_new_tokens": 513}, "max_new_tokens is 513: here it may be 512 at most"),
        ("answer", {"text": "dogs", "max_new_tokens": 256, "min_similarity": -1.0}, "fills the context of 256"),
        ("answer", {"text": "dogs " * 300, "min_similarity": -1.0}, "leaves no room for a passage"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(server, capfd, verb, request_, message):
    answer = server.ask(verb, **request_)
    assert answer["status"] == 422
    assert message in answer["error"]
    assert "Traceback" not in capfd.readouterr().err


def test_an_index_that_cannot_be_served_is_refused(run, folder):
    for arguments, message in [
        (("--index", folder / "documents"), "there is no index in"),
        (("--index", folder / "nowhere"), "there is no index in"),
        ((), "nothing is to be served: name a --checkpoint or an --index"),
    ]:
        status, out, err = run("serve", *arguments, "--port", 0)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert message in err


def test_without_a_gpt_it_searches_alone(folder):
    assert list(load_services([], str(folder / "index"))) == ["search"]


def test_on_the_page(server, browser):
    with opened(browser, server.address) as page:
        assert page.get_by_role("tab").all_text_contents() == ["Generate", "Search", "Answer"]
        answer, status = asked(page, "Search", QUESTION, "Search", Passages="3")
        passages = server.ask("search", text=QUESTION, k=3)["passages"]
        assert status == "Done"
        shown = answer.locator("p").all_text_contents()
        assert shown[1::2] == [passage["text"] for passage in passages]
        for i, (line, passage) in enumerate(zip(shown[::2], passages, strict=True), 1):
            assert line.startswith(f"[{i}] {passage['source']}, characters {passage['start']} to {passage['end']} · ")
            assert all(f"{name} {score:.4f}" in line for name, score in passage["scores"].items())
        options = {"Passages": "2", "Tokens_at_most": "9", "Least_similarity": "-1"}
        answer, status = asked(page, "Answer", QUESTION, "Answer", **options)
        expected = server.ask("answer", text=QUESTION, k=2, max_new_tokens=9, min_similarity=-1.0)
        assert answer.text_content().startswith(expected["text"])
        assert answer.locator("p.source").all_text_contents()[1].startswith(f"[2] {expected['passages'][1]['source']}")
        answer, _ = asked(page, "Answer", QUESTION, "Answer", Least_similarity="1.1")
        assert answer.text_content() == "Nothing relevant was found in the index: there is no answer."
        answer, status = asked(page, "Search", "?!", "Search")
        assert "has no words" in status
        assert page.locator("img, b").count() == 0
        page.goto(f"{server.address}/docs")
        page.wait_for_selector("h2")
        assert "POST /api/answer" in page.locator("h2").all_text_contents()
