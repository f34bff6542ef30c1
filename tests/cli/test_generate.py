"""generate: from a checkpoint alone."""

import re
import shutil

import pytest

from tests.conftest import WORDS
from tests.outside import space_before, with_template


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    return tmp_path_factory.mktemp("generate") / "moved.ckpt"


@pytest.fixture
def checkpoint(run, config, tmp_path, moved):
    """Trained once for all tests; nothing but the file is left of the run."""
    if not moved.exists():
        assert run("fit", "--config", config)[0] == 0
        shutil.copy(tmp_path / "logs/tiny/version_0/checkpoints/last.ckpt", moved)
        for folder in ("logs", "cache"):
            shutil.rmtree(tmp_path / folder)
    return moved


def test_prompts_go_on_and_the_seed_decides(run, checkpoint):
    arguments = ("generate", "--checkpoint", checkpoint, "--prompt", "the cat", "--prompt", "a", "--max-new-tokens", 20)
    status, first, _ = run(*arguments)
    assert status == 0
    texts = first.split("\n\n")
    assert texts[0].startswith("the cat")
    assert texts[1].startswith("a")
    assert run(*arguments)[1] == first
    assert run(*arguments, "--seed", 1)[1] != first
    greedy = [run(*arguments, "--temperature", 0, "--seed", seed)[1] for seed in (0, 1)]
    assert greedy[0] == greedy[1] == run(*arguments, "--top-k", 1)[1]


def test_a_prompt_alone_or_among_others_is_the_same(run, checkpoint):
    common = ("generate", "--checkpoint", checkpoint, "--temperature", 0, "--max-new-tokens", 12)
    alone = [run(*common, "--prompt", prompt)[1].strip("\n") for prompt in ("seven grey dogs", "a")]
    together = run(*common, "--prompt", "seven grey dogs", "--prompt", "a")[1]
    assert together.strip("\n") == "\n\n".join(alone)


def test_without_a_prompt_it_starts_a_document(run, checkpoint):
    status, out, _ = run("generate", "--checkpoint", checkpoint, "--max-new-tokens", 5)
    assert status == 0
    assert len(out.strip("\n")) <= 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "the cat " * 9], r"is 72 tokens, the context 32: shorten it"),
        (["--prompt", "Ünder"], r"characters that are not in this checkpoint's vocabulary"),
        (["--temperature", "-1"], r"--temperature: '-1' is no number between 0"),
        (["--temperature", "nan"], r"--temperature: 'nan'"),
        (["--top-k", "0"], r"--top-k: '0' is no whole number of at least 1"),
        (["--top-p", "1.5"], r"--top-p: '1\.5' is no number between"),
        (["--max-new-tokens", "many"], r"--max-new-tokens: 'many'"),
        *[
            (["--device", name], f"--device {name}: there is no such device here, take cpu")
            for name in ("gpu9", "meta")
        ],
        (["--promt", "x"], r"--promt"),
        (["--checkpoint", "nowhere.ckpt"], r"there is no checkpoint nowhere\.ckpt"),
    ],
)
def test_bad_options_are_refused_in_one_line(run, checkpoint, arguments, message):
    status, out, err = run("generate", "--checkpoint", checkpoint, *arguments)
    assert status == 2
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert out == ""


def test_files_that_are_no_checkpoint(run, tmp_path, checkpoint):
    folder, text = tmp_path / "folder", tmp_path / "text.ckpt"
    folder.mkdir()
    text.write_text("hello")
    for path, message in ((folder, "is a folder"), (text, "truncated or damaged")):
        status, _, err = run("generate", "--checkpoint", path)
        assert status == 2
        assert message in err


def test_a_tokenizer_with_a_template_and_a_space_before_words_continues_the_prompt(run, config, tmp_path):
    plain = space_before([*WORDS, *(f"{i}." for i in range(60))])
    texts = []
    for i, tokenizer in enumerate((plain, with_template(plain))):
        (tmp_path / str(i)).mkdir()
        tokenizer.save(str(tmp_path / str(i) / "tokenizer.json"))
        data = ("--data.tokenizer", tmp_path / str(i), "--data.end_token", "</s>", "--data.seq_len", 8)
        assert run("fit", "--config", config, *data)[0] == 0
        checkpoint = tmp_path / f"logs/tiny/version_{i}/checkpoints/last.ckpt"
        status, out, _ = run("generate", "--checkpoint", checkpoint, "--prompt", "the cat", "--max-new-tokens", 4)
        assert status == 0
        texts.append(out.strip("\n"))
    assert texts[0] == texts[1]
    assert texts[0].startswith("the cat ")
