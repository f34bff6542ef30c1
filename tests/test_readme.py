"""Each command of the README and some pages runs: shortened, on a text of this test, in a folder of its own."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

import src.cli
from src.checkpoint import load_trained

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/reading.md",
    "docs/activations.md",
    "docs/optimizers.md",
    "docs/dashboards.md",
)
TEXT = "".join((ROOT / page).read_text() for page in PAGES)
# those of the template's extras that were taken out
ABSENT = {
    name
    for name in (
        "bench",
        "completion",
        "evaluation",
        "float8",
        "huggingface",
        "lora",
        "plan",
        "retrieval",
        "serve",
        "sweep",
    )
    if not (ROOT / "src/extras" / name).is_dir()
}


def is_there(text: str) -> bool:
    """Whether a command or path names no extra that was taken out."""
    return ABSENT.isdisjoint(re.findall(r"\bextras/(\w+)", text))


FOUND = dict.fromkeys(re.findall(r"\./run\.sh (\w[^`\n#]*?)\s*(?:#[^\n]*)?(?:`|\n)", TEXT))
COMMANDS = [command for command in FOUND if is_there(command)]
PYTHON = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
VERBS = tuple(src.cli.VERBS)
# what the hub would have to send: these are parsed, which builds every class's arguments, and not run
FROM_THE_HUB = ("roneneldan/TinyStories", "configs/paper/")
SHORT = {
    "fit": "--trainer.max_steps 2 --trainer.limit_val_batches 1",
    "validate": "--trainer.limit_val_batches 1",
    "test": "--trainer.limit_test_batches 1",
    "bench": "--steps 1 --warmup 1 --rounds 1",
    "generate": "--max-new-tokens 5",
    "rag answer": "--max-new-tokens 5 --min-similarity -1",
    "rag queries": "--input stories.jsonl",
    "sweep": "--set trainer.max_steps=1 --set trainer.limit_val_batches=1 --threads 1",
}
# what stands in for each configuration's default data: small, and there without a network
DATA = {
    "gpt": "--data.source my_text.txt --data.tokenizer byte --data.batch_size 2 --data.eval_batch_size 2",
    "shakespeare_char": "--data.batch_size 2 --data.eval_batch_size 2",
    "bert": "--data.source stories.txt --data.document_separator 4 --data.tokenizer_vocab_size 300 --data.batch_size 2",
    "encoder": "--data.source stories.txt --data.document_separator 4 --data.tokenizer_vocab_size 300",
    "longformer": "--data.source stories.txt --data.document_separator 4 --data.tokenizer_vocab_size 300",
    "classification": "",
    "transformer": "--data.source pairs --data.tokenizer_vocab_size 300",
}
DATA["retriever"] = "--data.source stories.txt --data.document_separator 4 --data.batch_size 2 --data.eval_batch_size 2"
DATA["reranker"] = DATA["retriever"]
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SENTENCE = "The {} of {} is a city near {}."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkout's configurations, and the files that the README's examples name."""
    path = tmp_path_factory.mktemp("readme")
    (path / "configs").symlink_to(ROOT / "configs")
    text = " ".join(WORDS[i * i % 12] for i in range(20_000))
    for name in ("my_text.txt", "input.txt"):
        (path / name).write_text(text)
    (path / "corpus").mkdir()
    rows = [f'{{"body": "{text[i * 2000 : (i + 1) * 2000]}"}}' for i in range(40)]
    (path / "corpus/some.jsonl").write_text("\n".join(rows))
    (path / "mine.yaml").write_text("trainer: {gradient_clip_val: 0.5}\n")
    sentences = [SENTENCE.format(*(WORDS[i * k % 12] for k in (1, 5, 7))) for i in range(800)]
    (path / "stories.txt").write_text("4".join(" ".join(sentences[i : i + 20]) for i in range(0, 800, 20)))
    stories = (path / "stories.txt").read_text().split("4")
    (path / "stories.jsonl").write_text("\n".join(f'{{"text": "{story}"}}' for story in stories))
    (path / "notes").mkdir()
    for name, story in (("old", stories[0]), ("new", stories[1])):
        (path / f"notes/{name}.txt").write_text(story)
    (path / "pairs").mkdir()
    for language, turn in (("en", 1), ("fr", -1)):
        pairs = [f"{i} " + " ".join(WORDS[i * k % 12] for k in range(1, 8))[::turn] for i in range(300)]
        (path / f"pairs/train.{language}").write_text("\n".join(pairs) + "\n")
    reviews = [f"Der Film {i} ist {'schön' if i % 2 else 'öde'}.;{'gut' if i % 2 else 'schlecht'}" for i in range(60)]
    (path / "reviews.csv").write_text("\n".join(["Text;Urteil", *reviews]), encoding="latin-1")
    lines = [f"{i} eins zwei drei\t{i} one two three" for i in range(200)]
    (path / "pairs.tsv").write_text("\n".join(["de\ten", *lines]))
    for split in ("train", "validation"):
        rows = [{"sentence1": text, "sentence2": text, "label": i % 2} for i, text in enumerate(sentences[:8])]
        (path / "glue/rte").mkdir(parents=True, exist_ok=True)
        (path / f"glue/rte/{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (path / "nanobeir/qrels").mkdir(parents=True)
    texts = [{"_id": str(i), "text": text} for i, text in enumerate(sentences[:8])]
    for name in ("corpus", "queries"):
        (path / f"nanobeir/{name}.jsonl").write_text("\n".join(map(json.dumps, texts)) + "\n")
    (path / "nanobeir/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n0\t1\t1\n")
    for name in ("sentences", "source", "a", "b", "ref"):
        (path / f"{name}.txt").write_text("\n".join(sentences[:20]) + "\n")
    return path


def short(command: str) -> list[str]:
    """The command with few steps and small data."""
    arguments = shlex.split(command)
    if any(name in command for name in FROM_THE_HUB):
        return [*arguments, "--print_config"]
    if arguments[0] in ("init", "serve"):  # one changes the project itself, the other runs until it is stopped
        return [arguments[0], "--help"]
    if arguments[0] == "evaluate" and not {"--input", "--data"} & set(arguments):  # on data that are fetched
        return [*arguments, "--help"]
    if arguments[:2] == ["track", "run"]:  # its data are frozen, and larger than a test's
        return ["track", "run", "--help"]
    if "--help" in arguments:
        return arguments
    if arguments[0] == "sweep":
        return short_sweep(command)
    config = re.search(r"--config configs/(?:extras/\w+/|modern/)?(\w+)\.yaml", command)
    data = shlex.split(DATA[config[1]]) if config and "--data.source" not in command else []
    options = SHORT.get(" ".join(arguments[:2]), SHORT.get(arguments[0], ""))
    if "compile true" in command:
        options += " --model.config.n_layers 1"
    if "configs/strategy" in command:  # samples of two processes take most of the time
        options += " --trainer.callbacks null"
    own = ["--experiment", "interrupted"] if "--resume" in arguments else []  # not what other commands left
    return [*arguments, *data, *options.split(), *own]


def short_sweep(command: str) -> list[str]:
    """The same over the first two values of each axis, with one seed or one more."""
    (path,) = re.findall(r"--config (configs/extras/sweep/\w+\.yaml)", command)
    content = yaml.safe_load(Path(path).read_text())
    for key, values in content["parameters"].items():
        if isinstance(values, list):
            content["parameters"][key] = values[:2]
            for value in values[:2]:
                if isinstance(value, dict):
                    value["parameters"] = {name: numbers[:1] for name, numbers in value["parameters"].items()}
    content |= {"seeds": [3]}
    Path("short").mkdir(exist_ok=True)
    Path("short", Path(path).name).write_text(yaml.safe_dump(content))
    command = command.replace(path, f"short/{Path(path).name}")
    command = re.sub(r"--seeds [\d ]+", "--seeds 3 4", re.sub(r"--cells \d+", "--cells 2", command))
    base = re.search(r"--base configs/small/(\w+)\.yaml", command)
    settings = re.sub("--(data[^ ]+) ", r"--set \1=", DATA[base[1] if base else "gpt"])
    settings = settings.replace("separator=4", "separator='\"4\"'")  # a value as in YAML, where 4 is a number
    return shlex.split(f"{command} {settings} {SHORT['sweep']}")


@pytest.fixture
def in_folder(folder, monkeypatch, run):
    """Run in that folder, with a run of each model to take up."""
    monkeypatch.chdir(folder)
    for name in ("gpt", "bert", "transformer"):
        if not (folder / f"logs/{name}/version_0/checkpoints/best.ckpt").exists():
            status, _, err = run(*short(f"fit --config configs/{name}.yaml"))
            assert status == 0, err
    return run


def test_the_readme_has_commands():
    assert len([command for command in COMMANDS if command.startswith(VERBS)]) >= 25


# what a command takes up -> the command before it that makes it
FIRST = {"gpt-hf": "export", "gpt2.ckpt": "import", "gpt2.yaml": "import", "long.yaml": "extend-context"}
FIRST |= {
    f"logs/{Path(path).stem}/version_0": f"fit --config configs/{path}"
    for path in (
        "classification.yaml",
        "classification_csv.yaml",
        "extras/retrieval/retriever.yaml",
        "extras/retrieval/reranker.yaml",
    )
}
FIRST |= {
    "my_index": "rag index",
    "my_vectors": "rag index --input notes --output my_vectors",
    "rows.jsonl": "rag mine",
}
for name, split in (("training", "rag queries --split train"), ("heldout", "rag queries --output heldout")):
    FIRST |= {f"{name}/": split, f"{name}_index": f"rag index --input {name}"}
FIRST["logs/sweep/activations-gpt"] = "sweep"
FIRST["logs/gpt2/version_0"] = "fit --config configs/gpt.yaml --model.config.positions learned"


@cache
def run_python() -> dict:
    """Run the README's Python from its first line to its last, once, and give what it has then."""
    names = {}
    exec("".join(PYTHON), names)
    return names


def prepare(in_folder, command):
    """Run the commands, or the Python, before it whose results it names."""
    if "mine.ckpt" in command:
        run_python()
    for name, verb in FIRST.items():
        if name in command and not command.startswith(verb) and not Path(name).exists():
            maker = next(c for c in COMMANDS if c.startswith(verb))
            prepare(in_folder, maker)
            assert in_folder(*short(maker))[0] == 0
    if made := re.search(r"--output (gpt-hf|adapter|\S+\.ckpt)", command):  # by the test before, and never replaced
        shutil.rmtree(made[1], ignore_errors=True)
        for path in Path().glob(f"{Path(made[1]).stem}.*"):
            path.unlink()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.slow if "--model.compile" in command else ())
        for command in COMMANDS
        if command.startswith(VERBS)
    ],
)
def test_command(in_folder, command):
    prepare(in_folder, command)
    arguments = short(command)
    if "configs/strategy" in command and "--print_config" not in arguments:
        # starts processes, by the command line of its own
        program = [sys.executable, "-m", "src", *arguments]
        places = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(program, env={**os.environ, **places}, capture_output=True, text=True)
        status, out, err = done.returncode, done.stdout, done.stderr
    else:
        status, out, err = in_folder(*arguments)
    assert status == 0, err
    assert out or "--output" in command


def test_python(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = run_python()
    uniform = math.log(names["data"].vocab_size)
    assert names["loss"] < uniform - 1
    assert names["trainer"].callback_metrics["test/loss"] < uniform - 1
    trained = load_trained("mine.ckpt", names["GPT"]).model
    assert torch.equal(names["task"].model.head.weight, trained.head.weight)


def test_the_other_words_are_those_of_the_script():
    script = (ROOT / "run.sh").read_text()
    others = {command.split()[0] for command in COMMANDS if not command.startswith(VERBS)} - {"VERB"}
    known = {word for word in ("pytest", "check", "tensorboard") if f"{word})" in script}
    assert others >= known if ABSENT else others == known


def test_every_path_that_the_documents_name_exists():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "logs/README.md"]:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
            path = (document.parent / link).resolve()
            assert path.exists() or not is_there(str(path)), f"{document.name}: {link}"
        for path in re.findall(r"\b(?:configs|src|tests|docs)/[\w/]+\.(?:yaml|py|md)\b", document.read_text()):
            assert (ROOT / path).exists() or not is_there(path), f"{document.name}: {path}"


# a sweep, which names its base, is no configuration: the tests of that extra make configurations of its cells
CONFIGS = [
    path for path in sorted((ROOT / "configs").rglob("*.yaml")) if "base" not in yaml.safe_load(path.read_text())
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_is_complete(run, path):
    """All classes and arguments in it are known: it resolves by itself, or, if it has no data, over a model's."""
    under = [] if "data" in yaml.safe_load(path.read_text()) else ["--config", ROOT / "configs/gpt.yaml"]
    status, out, err = run("fit", *under, "--config", path, "--print_config")
    assert status == 0, err
    assert "class_path" in out
