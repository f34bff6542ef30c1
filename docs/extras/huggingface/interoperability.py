"""Exports in the programs that load them: the largest difference of their outputs from those of the network here.

    python -m docs.extras.huggingface.interoperability

prints the table of interoperability.md. The networks are small and have random weights: what is compared is whether two
programs compute the same, which no training changes.
"""

import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from tokenizers import Tokenizer
from torch import Tensor, nn

from src.checkpoint import save_checkpoint
from src.encoder import load_encoder
from src.extras.huggingface.exporting import export
from tests.random_networks import TEXT, checkpoint_of

WORDS = TEXT[0].split()
TEXTS = [" ".join(WORDS[: 1 + 3 * i]) for i in range(5)]
Outputs = list[NDArray[np.float32]]  # of the network here and of the program, in turns


class Model(NamedTuple):
    """A network here, its checkpoint, and the folder that it is exported to."""

    network: nn.Module
    checkpoint: dict[str, Any]
    folder: Path


class Case(NamedTuple):
    """A program and a network.

    Args:
        package: of the program.
        model: the network's name among the random ones of the tests.
        command: what its user calls.
        outputs: computes what is compared.
        changes: of the network's configuration, and of its checkpoint.
    """

    package: str
    model: str
    command: str
    outputs: Callable[[Model], Outputs]
    changes: dict[str, Any] = {}  # noqa: RUF012
    keys: dict[str, Any] = {}  # noqa: RUF012


def ids(rows: int, length: int) -> Tensor:
    """Random tokens, none of them special: (rows, length)."""
    return torch.randint(5, 80, (rows, length), generator=torch.Generator().manual_seed(rows * length))


def mask(rows: int, length: int) -> Tensor:
    """An attention mask whose last row is padded from the middle on."""
    found = torch.ones(rows, length, dtype=torch.long)
    found[-1, length // 2 + 1 :] = 0
    return found


# ---- CTranslate2


def converted(model: Model) -> str:
    from ctranslate2.converters import TransformersConverter

    return TransformersConverter(str(model.folder)).convert(str(model.folder.with_suffix(".ct2")))


def ctranslate2_generator(model: Model) -> Outputs:
    """Compare the logits."""
    import ctranslate2

    tokenizer, some = Tokenizer.from_str(model.checkpoint["tokenizer"]), ids(1, 20)
    tokens = [tokenizer.id_to_token(i) for i in some[0].tolist()]
    found = ctranslate2.Generator(converted(model)).forward_batch([tokens])
    return [model.network(some).numpy(), np.array(found)]


def ctranslate2_encoder(model: Model) -> Outputs:
    """Compare the vectors of the last block."""
    import ctranslate2

    some = ids(2, 20)
    found = ctranslate2.Encoder(converted(model)).forward_batch(some.tolist())
    return [model.network.encoder(some).numpy(), np.array(found.last_hidden_state)]


def ctranslate2_translator(model: Model) -> Outputs:
    """Compare the log-probabilities of a given target."""
    import ctranslate2

    tokenizer = Tokenizer.from_str(model.checkpoint["tokenizer"])
    end = tokenizer.token_to_id(model.checkpoint["special_tokens"]["eos_token"])
    source, target = [*ids(1, 9)[0].tolist(), end], ids(1, 7)[0].tolist()
    tokens = [[tokenizer.id_to_token(i) for i in row] for row in (source, target)]
    (found,) = ctranslate2.Translator(converted(model)).score_batch([tokens[0]], [tokens[1]])
    logits = model.network(torch.tensor([source]), torch.tensor([[end, *target]]))
    expected = logits.log_softmax(-1)[0].gather(1, torch.tensor([*target, end])[:, None])
    return [expected[:, 0].numpy(), np.array(found.log_probs)]


# ---- ONNX


def batches(model: Model) -> Callable[[int, int], dict[str, Tensor]]:
    """Make a batch of some rows and of some length, in the order of the network's arguments."""
    if model.checkpoint["architecture"] == "gpt":
        return lambda rows, length: {"input_ids": ids(rows, length)}
    if model.checkpoint["architecture"] == "transformer":
        return lambda rows, length: {
            "input_ids": ids(rows, length),
            "decoder_input_ids": ids(rows, length - 2),
            "attention_mask": mask(rows, length),
        }
    return lambda rows, length: {
        "input_ids": ids(rows, length),
        "token_type_ids": torch.zeros(rows, length, dtype=torch.long),
        "attention_mask": mask(rows, length),
    }


def dynamic(model: Model, names: list[str]) -> list[dict[int, Any]]:
    """Say that rows and lengths of each input may change, up to the network's positions."""
    longest = model.checkpoint["model_config"]["max_seq_len"]
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=longest)
    target = torch.export.Dim("target_length", max=longest)
    return [{0: rows, 1: target if name.startswith("decoder") else length} for name in names]


def run_onnx(program: Any, model: Model) -> Outputs:
    """Compare the first output, for batches of other shapes than that of the export."""
    import onnxruntime

    path, outputs = model.folder / "model.onnx", []
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in ((1, 4), (3, 24)):
        batch = batches(model)(*shape)
        inputs = zip(session.get_inputs(), batch.values(), strict=True)
        found = session.run(None, {one.name: tensor.numpy() for one, tensor in inputs})[0]
        expected = model.network(**batch)
        outputs += [(expected if isinstance(expected, Tensor) else expected[0]).numpy(), found]
    return outputs


def onnx_of_the_network(model: Model) -> Outputs:
    """Export the network here, by torch alone. Its arguments are given by their order."""
    batch = batches(model)(2, 9)
    shapes = (tuple(dynamic(model, list(batch))),)
    return run_onnx(
        torch.onnx.export(model.network, tuple(batch.values()), dynamo=True, dynamic_shapes=shapes, verbose=False),
        model,
    )


def onnx_of_the_export(model: Model) -> Outputs:
    """Export HuggingFace's network."""
    import json

    import transformers

    (name,) = json.loads((model.folder / "config.json").read_text())["architectures"]
    theirs = getattr(transformers, name).from_pretrained(model.folder).eval()
    theirs.config.use_cache = False
    batch = batches(model)(2, 9)
    shapes = dict(zip(batch, dynamic(model, list(batch)), strict=True))
    program = torch.onnx.export(theirs, kwargs=batch, dynamo=True, dynamic_shapes=shapes, verbose=False)
    return run_onnx(program, model)


# ---- sentence-transformers


def sentence_vectors(model: Model) -> Outputs:
    from sentence_transformers import SentenceTransformer

    save_checkpoint(model.checkpoint, model.folder / "x.ckpt")
    encoder = load_encoder(model.folder / "x.ckpt")
    found = SentenceTransformer(str(model.folder), device="cpu").encode(TEXTS)
    return [encoder.encode(encoder.rows(TEXTS)[0]).numpy(), found]


def pair_scores(model: Model) -> Outputs:
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(str(model.folder), device="cpu")
    batch = theirs.tokenizer([WORDS[0]] * len(TEXTS), TEXTS, padding=True, return_tensors="pt")
    return [model.network(**batch)[:, 0].numpy(), theirs.predict([(WORDS[0], text) for text in TEXTS])]


# ---- lm-eval


def log_likelihoods(model: Model) -> Outputs:
    """Compare the log-likelihoods of continuations, as its tasks of several choices ask for them."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    tokenizer = Tokenizer.from_str(model.checkpoint["tokenizer"])
    pairs = [(" ".join(WORDS[:i]), " " + WORDS[i]) for i in range(1, 4)]
    harness = HFLM(pretrained=str(model.folder), device="cpu", batch_size=2, dtype="float32")
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    found, expected = [score for score, _ in harness.loglikelihood(asked)], []
    for before, after in pairs:
        whole, n = tokenizer.encode(before + after).ids, len(tokenizer.encode(before).ids)
        log_probabilities = model.network(torch.tensor([whole[:-1]])).log_softmax(-1)[0]
        expected.append(sum(log_probabilities[i - 1, whole[i]].item() for i in range(n, len(whole))))
    return [np.array(expected), np.array(found)]


CT2 = "ct2-transformers-converter --model FOLDER --output_dir OUT"
ONNX = "torch.onnx.export(network, inputs, dynamo=True, dynamic_shapes=...)"
ONNX_HF = "torch.onnx.export` of `from_pretrained(FOLDER)"
CLS = {"sentence_encoder": {"mode": "cls"}}
WINDOWLESS = {"window": None, "window_pattern": None}
CASES = [
    Case("ctranslate2", "gpt", CT2, ctranslate2_generator),
    Case("ctranslate2", "gpt of a llama", CT2, ctranslate2_generator),
    Case("ctranslate2", "gpt of a qwen3", CT2, ctranslate2_generator, WINDOWLESS),
    Case("ctranslate2", "bert", CT2, ctranslate2_encoder, {"activation": "gelu"}),
    Case("ctranslate2", "bert without segments", CT2, ctranslate2_encoder),
    Case("ctranslate2", "transformer of norm pre", CT2, ctranslate2_translator),
    Case("ctranslate2", "transformer of learned positions", CT2, ctranslate2_translator),
    Case("onnxruntime", "gpt", ONNX, onnx_of_the_network),
    Case("onnxruntime", "bert", ONNX, onnx_of_the_network),
    Case("onnxruntime", "bert_classifier of norm pre", ONNX, onnx_of_the_network),
    Case("onnxruntime", "transformer of norm pre", ONNX, onnx_of_the_network),
    Case("onnxruntime", "gpt", ONNX_HF, onnx_of_the_export),
    Case("onnxruntime", "gpt with rotary positions", ONNX_HF, onnx_of_the_export),
    Case("onnxruntime", "gpt of a llama", ONNX_HF, onnx_of_the_export),
    Case("onnxruntime", "gpt of a mistral", ONNX_HF, onnx_of_the_export),
    Case("onnxruntime", "gpt of a qwen3", ONNX_HF, onnx_of_the_export),
    Case("onnxruntime", "bert of norm pre", ONNX_HF, onnx_of_the_export),
    Case("onnxruntime", "transformer of norm pre", ONNX_HF, onnx_of_the_export),
    Case("sentence-transformers", "bert", "SentenceTransformer(FOLDER)", sentence_vectors, keys=CLS),
    Case("sentence-transformers", "bert of norm pre", "SentenceTransformer(FOLDER)", sentence_vectors, keys=CLS),
    Case("sentence-transformers", "bert of one segment", "SentenceTransformer(FOLDER)", sentence_vectors, keys=CLS),
    Case("sentence-transformers", "bert without segments", "SentenceTransformer(FOLDER)", sentence_vectors, keys=CLS),
    Case(
        "sentence-transformers", "bert with today's choices", "SentenceTransformer(FOLDER)", sentence_vectors, keys=CLS
    ),
    Case("sentence-transformers", "bert_classifier", "CrossEncoder(FOLDER)", pair_scores, {"n_labels": 1}),
    Case(
        "sentence-transformers", "bert_classifier of one segment", "CrossEncoder(FOLDER)", pair_scores, {"n_labels": 1}
    ),
    Case("sentence-transformers", "bert_classifier of norm pre", "CrossEncoder(FOLDER)", pair_scores, {"n_labels": 1}),
    Case("lm_eval", "gpt", "lm_eval --model hf --model_args pretrained=FOLDER", log_likelihoods),
    Case("lm_eval", "gpt with rotary positions", "lm_eval --model hf --model_args pretrained=FOLDER", log_likelihoods),
    Case("lm_eval", "gpt of a llama", "lm_eval --model hf --model_args pretrained=FOLDER", log_likelihoods),
    Case("lm_eval", "gpt of a qwen3", "lm_eval --model hf --model_args pretrained=FOLDER", log_likelihoods),
]


@torch.no_grad()
def difference(case: Case, folder: Path) -> float:
    """Export a case's network into a new folder, and find the largest difference of its program's outputs."""
    network, checkpoint = checkpoint_of(case.model, **case.changes)
    model = Model(network, {**checkpoint, **case.keys}, folder)
    export(model.checkpoint, folder)
    outputs = case.outputs(model)
    pairs = list(zip(outputs[::2], outputs[1::2], strict=True))
    for expected, found in pairs:
        assert expected.shape == found.shape
        assert expected.std() > 1e-3, "a comparison of nothings"
    return max(float(np.abs(expected - found).max()) for expected, found in pairs)


def main() -> None:
    """Print the table."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print("| program | version | network | command | largest difference |\n| --- | --- | --- | --- | --- |")
    for case in CASES:
        with tempfile.TemporaryDirectory() as root:
            found = difference(case, Path(root) / "model")
        cells = [case.package, version(case.package), case.model, f"`{case.command}`", f"{found:.1e}"]
        console.print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
