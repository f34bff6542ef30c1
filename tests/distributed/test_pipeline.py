"""Pipeline stages, one after the other, are the network; and the schedules train as one process does."""

from copy import deepcopy
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.architectures import architectures
from src.distributed.stages import keep, partition, steps_of
from src.models import (
    BERT,
    GPT,
    BERTClassifier,
    BERTClassifierConfig,
    BERTConfig,
    GPTConfig,
    Longformer,
    LongformerConfig,
    Transformer,
    TransformerConfig,
)
from src.models.network import run
from tests.distributed.jobs import HALFWAY, fit, losses, run_job, write_config
from tests.random_networks import AS_BART
from tests.reversing import reversing

SHAPE = {"max_seq_len": 16, "d_model": 16, "n_heads": 2, "dropout": 0.0, "vocab_size": 40}
NETWORKS = {
    "gpt": lambda norm, tie: GPT(GPTConfig(**SHAPE, n_layers=3, norm=norm, tie_embeddings=tie)),
    "bert": lambda norm, _: BERT(BERTConfig(**SHAPE, n_layers=3, norm=norm)),
    "rotary": lambda norm, tie: GPT(
        GPTConfig(**SHAPE, n_layers=3, norm=norm, tie_embeddings=tie, positions="rotary", window=[2, 0, 3])
    ),
    "longformer": lambda norm, _: Longformer(LongformerConfig(**SHAPE, n_layers=3, norm=norm, window=2)),
    "classifier": lambda norm, _: BERTClassifier(BERTClassifierConfig(**SHAPE, n_layers=2, norm=norm)),
    "transformer": lambda norm, tie: Transformer(
        TransformerConfig(**SHAPE, n_encoder_layers=2, n_decoder_layers=2, norm=norm, tie_embeddings=tie)
    ),
    "transformer as BART": lambda norm, tie: Transformer(
        TransformerConfig(**SHAPE, n_encoder_layers=2, n_decoder_layers=2, norm=norm, tie_embeddings=tie, **AS_BART)
    ),
}


def inputs_of(kind):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(40, (3, 9), generator=generator)
    mask = (torch.arange(9) < torch.tensor([9, 4, 7])[:, None]).long()
    if kind == "gpt":
        return {"input_ids": ids}
    if kind == "rotary":
        return {"input_ids": ids, "documents": (torch.arange(9) > 4).long().expand(3, -1)}
    if kind.startswith("transformer"):
        return {"input_ids": ids, "decoder_input_ids": ids[:, :5], "attention_mask": mask}
    segments = (torch.arange(9) > 3).long().expand(3, -1)
    inputs = {"input_ids": ids, "token_type_ids": segments, "attention_mask": mask}
    return inputs if kind == "classifier" else {**inputs, "masked_positions": torch.tensor([[1, 2], [0, 3], [5, 0]])}


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_steps_say_what_they_give_and_call(kind, norm, tie):
    model = NETWORKS[kind](norm, tie).eval()
    state = ()
    for step in model.steps(**inputs_of(kind)):
        called = set()
        hooks = [m.register_forward_hook(lambda m, *_, called=called: called.add(m)) for m in model.modules()]
        found = step.run(*state)
        for hook in hooks:
            hook.remove()
        state = found if type(found) is tuple else (found,)
        if step.shapes:
            assert [x.shape for x in state] == [(*shape, 16) for shape in step.shapes]
        declared = {id(p) for module in step.modules if module is not None for p in module.parameters()}
        assert {id(p) for module in called for p in module.parameters(False)} == declared


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_stages_hold_every_parameter_between_them_and_are_the_network(kind, tie):
    whole = NETWORKS[kind]("pre", tie).eval()
    held: dict[str, int] = {}
    state = ()
    for start, end in pairwise([0, 2, 3, len(steps_of(whole))]):
        stage = deepcopy(whole)
        keep(stage, steps_of(stage)[start:end])
        for name in stage.state_dict():
            held[name] = held.get(name, 0) + 1
        state = run(stage.steps(**inputs_of(kind))[start:end], *(state if type(state) is tuple else (state,)))
    torch.testing.assert_close(state, whole(**inputs_of(kind)), atol=1e-6, rtol=0)
    assert held.keys() == whole.state_dict().keys()
    names = whole.state_dict(keep_vars=True)
    tied = {name for name in names if sum(other is names[name] for other in names.values()) > 1}
    assert {name for name, stages in held.items() if stages > 1} <= tied


def test_every_architecture_of_the_registry_is_cut():
    for name, entry in architectures().items():
        with torch.device("meta"):
            assert len(steps_of(entry.network(entry.config()))) > 4, name


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(1, 5))
def test_the_most_expensive_stage_is_as_cheap_as_can_be(costs, n):
    n = min(n, len(costs))
    runs = partition([float(c) for c in costs], n)
    assert [i for run in runs for i in run] == list(range(len(costs)))
    assert len(runs) == n
    assert all(runs)
    every = ([0, *cuts, len(costs)] for cuts in combinations(range(1, len(costs)), n - 1))
    best = min(max(sum(costs[a:b]) for a, b in pairwise(cuts)) for cuts in every)
    assert max(sum(costs[i] for i in run) for run in runs) == best


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    """A network of six layers, and its losses on one process."""
    root = tmp_path_factory.mktemp("gpt")
    config = write_config("gpt", root)
    more = ["--model.init_args.config.n_layers", "4"]
    run_job(root / "job", [fit(config, root / "alone", "gpt", 1, *more)], processes=1)
    return config, more, losses(root / "alone" / "gpt" / "version_0")


def options(**settings):
    return [f"--trainer.strategy.init_args.{name}={value}" for name, value in settings.items()]


@pytest.mark.slow
def test_every_schedule(gpt, tmp_path):
    """Also with more micro-batches than rows, and one; and from a checkpoint of another strategy, half-way."""
    config, more, expected = gpt
    base = [*more, "--config", "configs/strategy/pipeline.yaml", "--trainer.devices", "2"]
    variants = {
        "gpipe": options(schedule="GPipe", micro_batches=2),
        "one": options(schedule="GPipe", micro_batches=1),
        "uneven": options(schedule="1F1B", micro_batches=3),
        "interleaved": options(schedule="Interleaved1F1B", micro_batches=4, stages_per_process=2),
    }
    commands = [fit(config, tmp_path / name, "gpt", 1, *base, *v) for name, v in variants.items()]
    ddp = fit(config, tmp_path / "ddp", "gpt", 2, *more, "--config", "configs/strategy/ddp.yaml", "--trainer.devices=2")
    halfway = f"gpt/version_0/checkpoints/{HALFWAY}.ckpt"
    commands += [ddp, [*fit(config, tmp_path / "on", "gpt", 1, *base), "--ckpt_path", str(tmp_path / "ddp" / halfway)]]
    commands += [[*ddp, "--ckpt_path", str(tmp_path / "interleaved" / halfway)]]
    run_job(tmp_path / "job", commands)
    for name in variants:
        assert losses(tmp_path / name / "gpt" / "version_0") == pytest.approx(expected, abs=1e-4), name
    assert losses(tmp_path / "on" / "gpt" / "version_0") == pytest.approx(expected[HALFWAY:], abs=1e-4)
    assert losses(tmp_path / "ddp" / "gpt" / "version_1") == pytest.approx(expected[HALFWAY:], abs=1e-4)


@pytest.mark.slow
def test_two_pipelines_of_two(gpt, tmp_path):
    config, more, expected = gpt
    base = [*more, "--config", "configs/strategy/pipeline.yaml", "--trainer.devices", "4"]
    run_job(tmp_path / "job", [fit(config, tmp_path, "gpt", 2, *base, *options(pipeline_size=2))], processes=4)
    assert losses(tmp_path / "gpt" / "version_0") == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_batches_of_every_shape(tmp_path):
    """Sentences of many lengths: batches with another number of rows and of tokens at each step."""
    config = write_config("transformer", tmp_path)
    source = reversing(tmp_path / "words", 300, "abcdefgh", 9)
    more = ["--data.source", str(source), "--data.max_ratio", "9"]
    run_job(tmp_path / "one", [fit(config, tmp_path / "alone", "transformer", 1, *more)], processes=1)
    more += ["--config", "configs/strategy/pipeline.yaml", "--trainer.devices", "2"]
    run_job(tmp_path / "two", [fit(config, tmp_path / "spread", "transformer", 1, *more)])
    for metric in ("train/loss", "val/loss", "val/bleu"):
        expected = losses(tmp_path / "alone" / "transformer" / "version_0", metric)
        assert losses(tmp_path / "spread" / "transformer" / "version_0", metric) == pytest.approx(expected, abs=1e-4)
