"""Tokenizers of the shapes that Llama 2, Llama 3 and Qwen have: equal ids, special tokens and text, in and out."""

import json

import pytest
import torch
import transformers
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from src.extras.huggingface.exporting import export
from src.extras.huggingface.importing import import_folder
from tests.conftest import WORDS
from tests.extras.huggingface.networks import decoder
from tests.outside import llama_like

PROMPTS = ["The small", "the", "Zürich — 中文 🙂 2026 a", " two  spaces\tand a tab ", ""]
NUMBERS = r"\p{N}{1,3}|[^\s\p{L}\p{N}]?\p{L}+|\s+(?!\S)|\s+|[^\s\p{L}\p{N}]+"


def byte_level(special: list[str]) -> Tokenizer:
    """Bytes that are split by a pattern of its own, as Llama 3's and Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(NUMBERS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    tokenizer.add_special_tokens(special)
    return tokenizer


def started(tokenizer: Tokenizer, start: str) -> Tokenizer:
    """The tokenizer, which puts a start token before each text."""
    ids = [(start, tokenizer.token_to_id(start))]
    template = processors.TemplateProcessing(single=f"{start} $A", pair=f"{start} $A {start} $B:1", special_tokens=ids)
    own = [tokenizer.post_processor] if tokenizer.post_processor is not None else []
    tokenizer.post_processor = processors.Sequence([*own, template]) if own else template
    return tokenizer


def llama_2() -> tuple[str, Tokenizer, dict[str, str]]:
    return "mistral", started(llama_like(), "<s>"), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def llama_3() -> tuple[str, Tokenizer, dict[str, str]]:
    tokenizer = byte_level(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|pad|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|pad|>"}
    return "llama", started(tokenizer, "<|begin_of_text|>"), names


def qwen() -> tuple[str, Tokenizer, dict[str, str]]:
    """With neither a start token nor an unknown one."""
    tokenizer = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.normalizer = normalizers.NFC()
    return "qwen3", tokenizer, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def smollm() -> tuple[str, Tokenizer, dict[str, str]]:
    """With a start token that no text begins with."""
    tokenizer = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return "llama", tokenizer, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


@pytest.fixture(scope="module", params=[llama_2, llama_3, qwen, smollm], ids=lambda make: make.__name__)
def made(request, tmp_path_factory):
    """A model's folder, what is imported of it, and the folder of its export."""
    root = tmp_path_factory.mktemp("tokenizers")
    kind, tokenizer, names = request.param()
    ids = {f"{name}_id": tokenizer.token_to_id(token) for name, token in names.items() if name != "unk_token"}
    # a Qwen3 has more embeddings than ids
    size = {"vocab_size": tokenizer.get_vocab_size() + 5 * (kind == "qwen3"), "max_position_embeddings": 64}
    decoder(kind, tokenizer, **size, **{"bos_token_id": None, **ids}).save_pretrained(root / "in")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(root / "in")
    checkpoint = import_folder(root / "in", "a model").content
    export(checkpoint, root / "out")
    return root, names, checkpoint


def test_ids_and_special_tokens_are_equal(made):
    root, names, checkpoint = made
    before, after = (transformers.AutoTokenizer.from_pretrained(root / name) for name in ("in", "out"))
    assert [before(text).input_ids for text in PROMPTS] == [after(text).input_ids for text in PROMPTS]
    assert {name: getattr(after, name) for name in names} == names == checkpoint["special_tokens"]
    for text in (*names.values(), " ".join(names.values())):
        assert before(text).input_ids == after(text).input_ids
    configs = [json.loads((root / name / "config.json").read_text()) for name in ("in", "out")]
    assert configs[0]["eos_token_id"] == configs[1]["eos_token_id"]
    assert configs[0]["bos_token_id"] in (configs[1]["bos_token_id"], None)
    again = import_folder(root / "out", "a model").content
    assert again["tokenizer"] == checkpoint["tokenizer"]


def test_greedy_text_is_that_of_transformers(made, run, tmp_path):
    """From text to text: with the start token, where the tokenizer puts one before a text."""
    root, _, _ = made
    model = transformers.AutoModelForCausalLM.from_pretrained(root / "in").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(root / "in")
    assert run("import", "--from", root / "in", "--output", tmp_path / "x.ckpt")[0] == 0
    prompts = [prompt for prompt in PROMPTS if tokenizer(prompt).input_ids]
    asked = [part for prompt in prompts for part in ("--prompt", prompt)]
    options = ("--temperature", 0, "--max-new-tokens", 12)
    status, found, err = run("generate", "--checkpoint", tmp_path / "x.ckpt", *asked, *options)
    assert (status, err) == (0, "")
    expected = []
    for prompt in prompts:
        batch = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        ids = model.generate(**batch, max_new_tokens=12, do_sample=False, pad_token_id=0)[0]
        expected.append(tokenizer.decode(ids, skip_special_tokens=True))
    assert found == "\n\n".join(expected) + "\n"


def test_what_is_imported_trains(made, run, tmp_path, text_file):
    root, names, _ = made
    assert run("import", "--from", root / "in", "--output", tmp_path / "x.ckpt")[0] == 0
    data = {"source": str(text_file), "document_separator": "\n\n", "batch_size": 4, "cache_dir": str(tmp_path / "c")}
    base = {
        "model": {"class_path": "GPTModule"},
        "data": {"class_path": "LMDataModule", "init_args": data},
        "trainer": {"max_steps": 3, "accelerator": "cpu", "default_root_dir": str(tmp_path / "logs")},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    layers = ("--config", tmp_path / "base.yaml", "--config", tmp_path / "x.yaml", "--experiment", "tuned")
    status, _, err = run("fit", *layers, "--model.schedule.warmup_steps", 1)
    assert status == 0, err
    last = tmp_path / "logs/tuned/version_0/checkpoints/last.ckpt"
    before, after = (torch.load(path, weights_only=True)["state_dict"] for path in (tmp_path / "x.ckpt", last))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    status, _, err = run("export", "--checkpoint", last, "--output", tmp_path / "out")
    assert (status, err) == (0, "")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == names["eos_token"]
