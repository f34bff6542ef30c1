"""plan: its figures against torch's own counts, measured runs and published ones."""

import json
import re
from functools import partial

import pytest
import torch

from docs.extras.plan import scale
from src.extras.plan.devices import DEVICES
from src.extras.plan.network import facts_of
from src.extras.plan.report import outcome
from src.extras.plan.run import Run
from src.extras.plan.strategies import Layout, estimate
from src.models import GPTConfig
from src.optim import Constant, Muon
from src.tasks import GPTModule
from tests.distributed.jobs import fit, run_job, write_config

GIB, GB = 2**30, 1e9
# rotary positions, SwiGLU, norms before, no biases (Touvron et al. 2023)
LLAMA = GPTConfig(
    vocab_size=32000,
    max_seq_len=4096,
    d_model=4096,
    n_heads=32,
    n_layers=32,
    d_ff=11008,
    activation="swiglu",
    bias=False,
    tie_embeddings=False,
    positions="rotary",
    dropout=0.0,
    attention_dropout=0.0,
)
GPT2 = GPTConfig(dropout=0.0, attention_dropout=0.0)


def facts(config, precision="bf16-mixed", optimizer=torch.optim.AdamW):
    return facts_of(GPTModule(config, optimizer=partial(optimizer), schedule=Constant()), precision, config.max_seq_len)


@pytest.fixture(scope="module")
def gpt2():
    return facts(GPT2)


@pytest.fixture(scope="module")
def llama():
    return facts(LLAMA)


def test_counts_are_those_of_the_papers(gpt2, llama):
    assert llama.n_parameters == 6_738_415_616  # of the released weights
    assert gpt2.n_parameters == 124_439_808
    # 6 for each parameter of a product and 12 L T C for attention (Chowdhery et al. 2022, appendix B)
    assert llama.flops == pytest.approx(
        6 * (6_738_415_616 - 32000 * 4096 - 65 * 4096) + 12 * 32 * 4096 * 4096, rel=1e-3
    )
    assert gpt2.state == llama.state == 8


def test_the_optimizer_says_what_it_keeps():
    """Muon one moment of the blocks' matrices, AdamW two of the rest; plain SGD none."""
    network = facts(GPTConfig(100, n_layers=2, d_model=64, n_heads=2), optimizer=Muon)
    matrices = 2 * 12 * 64**2
    assert network.state * network.n_parameters == 4 * (matrices + 2 * (network.n_parameters - matrices))
    assert (
        facts(GPTConfig(100, n_layers=2, d_model=64, n_heads=2), optimizer=partial(torch.optim.SGD, lr=1.0)).state == 0
    )


def test_activations_are_what_autograd_keeps():
    """Of a block by hand, in float32: the inputs of two norms, of four matrix products, and of the activation."""
    config = GPTConfig(100, max_seq_len=64, d_model=32, n_heads=2, n_layers=3, dropout=0.0, attention_dropout=0.0)
    found = facts(config, "32-true")
    width = 64 * 32 * 4
    # norms; q k v and their input; the output of attention; both products of the feed-forward network; statistics
    block = 2 * width + (2 * width + 3 * width) + width + 2 * 4 * width + 2 * 2 * 64 * 4 + 2 * 64 * 4
    assert found.blocks == pytest.approx(3 * block, rel=0.02)
    assert found.checkpointed == pytest.approx(found.around + 3 * width + found.largest_block)
    assert facts(config, "bf16-mixed").blocks < 0.75 * found.blocks


def test_each_further_token_keeps_a_block_and_what_the_output_layer_takes():
    shape = {"max_seq_len": 64, "d_model": 32, "n_heads": 2, "n_layers": 3, "dropout": 0.0, "attention_dropout": 0.0}
    one, three = (facts(GPTConfig(100, n_future_tokens=n, **shape), "32-true") for n in (1, 3))
    assert three.blocks == pytest.approx(5 / 3 * one.blocks, rel=0.02)  # which read one input
    # the norm's input and statistics; its output, and the gradient that is ready with the loss
    assert three.around - one.around == pytest.approx(2 * 3 * 64 * 32 * 4, rel=0.05)


def test_memory_is_that_of_a_measured_run(gpt2):
    """GPT-2 124M, 32 rows of 1,024 tokens on an H100: 13.5 GiB by torch's count (docs/extras/bench/speed.md)."""
    found = estimate(gpt2, Layout("one device", 1), 80 * GB)
    fixed = found.memory * 0.9 - found.free
    assert (fixed + 32 * found.row) / GIB == pytest.approx(13.5, rel=0.15)


def hours(facts, devices, tokens, mfu, strategy):
    run, device = Run(facts, "bf16-mixed", None, False, ("DDPStrategy", {})), DEVICES["a100-80"]
    found = estimate(facts, Layout(strategy, devices), device.gigabytes * GB)
    made = outcome(run, found, device, 8, tokens, mfu)
    assert made.rows > 0
    assert not made.checkpointing
    return made.days * 24


def test_what_is_frozen_has_no_gradients_no_state_and_costs_no_gradient_of_its_weights(gpt2):
    task = GPTModule(
        GPT2, optimizer=partial(torch.optim.AdamW), schedule=Constant(), freeze=["blocks.*", "position_embedding.*"]
    )
    found = facts_of(task, "32-true", 1024)
    trained = 50257 * 768 + 2 * 768  # the token embedding and the last norm
    assert found.trained * found.n_parameters == pytest.approx(trained)
    alone = estimate(found, Layout("ddp", 8), 80 * GB)
    assert alone.gradients == pytest.approx(trained * 4)
    assert alone.optimizer == pytest.approx(trained * 8)
    assert alone.parameters == gpt2.n_parameters * 4
    assert found.flops == pytest.approx(gpt2.flops * (2 + trained / gpt2.n_parameters) / 3)
    assert found.blocks < facts(GPT2, "32-true").blocks  # whose linear layers keep what they read


def test_published_runs_took_as_long(gpt2, llama):
    """Llama 2 7B with the utilisation of an earlier run; GPT-2 with that stated for the run itself: see scale.md."""
    assert hours(llama, 1024, 2e12, DEVICES["a100-80"].mfu, "fsdp") * 1024 == pytest.approx(184_320, rel=0.15)
    assert hours(gpt2, 8, 10e9, 0.60, "ddp") == pytest.approx(1.5, rel=0.15)


def test_context_parallel_devices_share_a_row_and_all_shards(gpt2):
    whole, shared = (estimate(gpt2, Layout("fsdp", 8, context=context), 80e9) for context in (1, 4))
    assert (whole.layout.data, shared.layout.data) == (8, 2)
    assert (shared.parameters, shared.row) == (whole.parameters, whole.row / 4)
    # of 1,024 / 4 tokens of 12 blocks: queries, keys, values and output in bfloat16, 3/4 of them, forward and backward
    assert shared.sent_row == 12 * 2 * 1024 / 4 * 4 * 768 * 2 * 3 / 4


@pytest.mark.parametrize(("size", "ranks"), [("0.1B", 64)])
def test_the_table_of_scale(size, ranks):
    """What torch itself puts on a rank, and the formula; HSDP and all."""
    found = list(scale.rows([size], [ranks]))
    assert len(found) == 6
    for _, layout, counted, formula in found:
        assert formula == pytest.approx(counted, rel=0.02), layout


@pytest.mark.slow
def test_bytes_on_two_processes(tmp_path):
    config = write_config("gpt", tmp_path)
    probe = {"class_path": "tests.distributed.probes.Bytes", "init_args": {"folder": str(tmp_path / "bytes")}}
    more = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--config", "configs/strategy/fsdp.yaml"]
    more += [f"--trainer.callbacks={json.dumps([probe])}", "--allow_class_paths=tests", "--trainer.devices=2"]
    run_job(tmp_path / "job", [fit(config, tmp_path / "logs", "gpt", 2, *more)])
    measured = json.loads((tmp_path / "bytes" / "0.json").read_text())
    with torch.device("meta"):
        checkpoint = torch.load(tmp_path / "logs/gpt/version_0/checkpoints/last.ckpt", weights_only=True)
    planned = estimate(facts(GPTConfig(**checkpoint["model_config"]), "32-true"), Layout("fsdp", 2), 0)
    for what in ("parameters", "gradients", "optimizer"):
        assert getattr(planned, what) == pytest.approx(measured[what], rel=0.01), what


def test_a_plan_is_printed_without_the_data_or_the_devices(run, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    command = ["plan", "--config", "configs/paper/gpt2_small.yaml", "--config", "configs/strategy/fsdp.yaml"]
    status, out, err = run(*command, "--devices", 1024, "--device", "h100", "--price", 2, "--tokens", 3e11)
    assert status == 0, err
    for name in ("ddp", "zero1", "zero2", "zero3", "fsdp *", "tensor_parallel", "pipeline"):
        assert re.search(rf"^\s*{re.escape(name)}", out, re.MULTILINE), name
    assert "124,439,808 parameters, 50,257 tokens" in out
    assert "(docs/extras/bench/speed.md)\n" in out  # where the utilisation is from, whole
    assert "largest micro-batch" in out


def test_the_adapters_alone_are_trained(run):
    pytest.importorskip("src.extras.lora")
    command = ["plan", "--config", "configs/gpt.yaml", "--config", "configs/extras/lora/lora.yaml", "--device", "cpu"]
    status, out, err = run(*command)
    assert status == 0, err
    # 8 x (inputs + outputs) for each of four layers of four blocks, beside 1,317,632
    assert "1,383,168 parameters, 4.74% of them trained" in " ".join(out.split())


def test_a_poor_choice_is_warned_of(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shape = {"n_layers": 8, "d_model": 8192, "n_heads": 32, "max_seq_len": 2048}
    options = [f"--model.config.{name}={value}" for name, value in shape.items()]
    command = ["plan", "--config", "configs/paper/gpt2_small.yaml", *options, "--data.seq_len=2048"]
    command += ["--config", "configs/strategy/tensor_parallel.yaml", "--devices", 16]
    status, out, err = run(*command, "--device", "a100-40")
    assert status == 0, err
    assert "ddp: does not fit" in out
    assert "tensor_parallel 16: tensor parallelism over machines" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "h1000"], "--device h1000: choose one of a100-40"),
        (["--tokens", "-1"], "no number between"),
        (
            [
                "--config",
                "configs/strategy/pipeline.yaml",
                "--trainer.strategy.init_args.pipeline_size=3",
                "--devices",
                "8",
            ],
            "pipeline_size 3 x data_parallel_size 2 x tensor_parallel_size 1 is not the number of processes, 8",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(run, options, said):
    status, _, err = run("plan", "--config", "configs/paper/gpt2_small.yaml", *options)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
