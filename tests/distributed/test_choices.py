"""Today's choices in a block train under every strategy, on two processes, as one process trains them."""

import random

import pytest
import yaml

from tests.distributed.jobs import STEPS, fit, losses, run_job, write_config
from tests.distributed.test_strategies import STRATEGIES
from tests.models.test_choices import ENCODER_DECODER, OF_GPT, ONE_STACK, combined

pytestmark = pytest.mark.slow
CHOICES = {
    "gpt": {"d_model": 24, "n_heads": 4, "n_kv_heads": 2, "norm_type": "rms", "qk_norm": True, "positions": "rotary"},
    "bert": {"norm": "pre", "first_norm": False, "gated": True, "positions": "rotary", "norm_type": "rms_plain"},
    "transformer": {"norm": "pre", "norm_type": "rms", "qk_norm": True, "positions": "learned", "bias": False},
}
CHOICES["transformer"] |= {"shared_positions": False, "embedding_norm": True, "scale_embeddings": False}  # as BART
CHOICES["gpt"] |= {
    "value_residual": True,
    "parallel": True,
    "logit_softcap": 5.0,
    "attention_softcap": 5.0,
    "zero_init": True,
    "token_shift": True,
    "n_value_embeddings": 1,
    "n_future_tokens": 2,
}
CHOICES["gpt"] |= {"rope_fraction": 0.67, "activation": "relu2", "bias": False, "window": 5, "window_pattern": "LG"}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    found = {}
    for kind, changes in CHOICES.items():
        found[kind] = write_config(kind, tmp_path_factory.mktemp(kind))
        settings = yaml.safe_load(found[kind].read_text())
        settings["model"]["init_args"]["config"] |= changes
        settings["model"]["init_args"]["groups"] = {"vectors_lr_scale": 0.5, "embeddings_weight_decay": 0.2}
        settings["trainer"]["callbacks"] = []
        found[kind].write_text(yaml.safe_dump(settings))
    return found


@pytest.fixture(scope="module")
def alone(configs, tmp_path_factory):
    logs = tmp_path_factory.mktemp("alone")
    run_job(logs / "job", [fit(config, logs, kind) for kind, config in configs.items()], processes=1)
    return logs


@pytest.mark.parametrize(
    ("name", "ranks", "processes"),
    [("tensor_parallel", 1, 2), ("fsdp", 2, 2), ("pipeline", 1, 2), ("zero3", 2, 2), ("pipeline", 1, 4)],
)
def test_the_losses_are_those_of_one_process(configs, alone, name, ranks, processes, tmp_path):
    """The pipeline on four processes is two stages of two tensor-parallel ranks."""
    more = ["--config", f"configs/strategy/{name}.yaml", f"--trainer.devices={processes}"]
    if processes > 2:
        more += ["--trainer.strategy.init_args.tensor_parallel_size=2"]
    run_job(
        tmp_path / "job", [fit(config, tmp_path, kind, ranks, *more) for kind, config in configs.items()], processes
    )
    for kind in configs:
        for metric, count in (("train/loss", STEPS), ("train/gradient_norm", STEPS), ("val/loss", 2)):
            expected = losses(alone / kind / "version_0", metric)
            assert len(expected) == count
            assert losses(tmp_path / kind / "version_0", metric) == pytest.approx(expected, abs=1e-4), (kind, metric)


MORE = {"gpt": {**ONE_STACK, **OF_GPT}, "bert": ONE_STACK, "transformer": ENCODER_DECODER}
DRAWS = 5  # of each network for each strategy


@pytest.mark.parametrize("name", STRATEGIES)
def test_any_choices_together_have_the_losses_of_one_process(configs, alone, name, tmp_path):
    """Drawn anew for each strategy; after ``alone``, which has prepared the data."""
    rng, commands = random.Random(name), {1: [], 2: []}
    drawn = {}
    for kind, config in configs.items():
        for i in range(DRAWS):
            changes = combined(rng.choice, **MORE[kind])
            if name == "tensor_parallel" and changes["n_kv_heads"] == 1:  # which two ranks cannot share
                changes["n_kv_heads"] = 2
            settings = yaml.safe_load(config.read_text())
            of_model = settings["model"]["init_args"]
            kept = {key: value for key, value in of_model["config"].items() if key not in CHOICES[kind]}
            of_model["config"] = {**kept, **changes, "d_model": 32, "n_heads": 4}
            # else a gradient near 0, as of ReLU², becomes a whole step, whose sign is that of its rounding
            of_model["optimizer"]["init_args"]["eps"] = 1e-4
            settings["trainer"]["max_steps"] = 3
            run = f"{kind}{i}"
            (tmp_path / f"{run}.yaml").write_text(yaml.safe_dump({**settings, "experiment": run}))
            more = ["--config", f"configs/strategy/{name}.yaml", "--trainer.devices=2"]
            commands[1].append(fit(tmp_path / f"{run}.yaml", tmp_path / "one", kind))
            commands[2].append(fit(tmp_path / f"{run}.yaml", tmp_path / "two", kind, STRATEGIES[name], *more))
            drawn[run] = changes
    for processes, of in commands.items():
        run_job(tmp_path / f"job{processes}", of, processes)
    for run, changes in drawn.items():
        for metric in ("train/loss", "train/gradient_norm"):
            one, two = (losses(tmp_path / logs / run / "version_0", metric) for logs in ("one", "two"))
            assert len(one) == 3
            assert two == pytest.approx(one, abs=1e-4), (metric, changes)
