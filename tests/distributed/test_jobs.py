"""Jobs as users start them, by Lightning's own launcher, torchrun and SLURM; faults, and what is refused."""

import os
import subprocess
import sys

import pytest
import yaml

from tests.distributed.jobs import HALFWAY, ROOT, fit, free_port, losses, run_job, write_config

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_config("gpt", tmp_path_factory.mktemp("gpt"))


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The losses of one process."""
    logs = tmp_path_factory.mktemp("alone")
    run_job(logs / "job", [fit(config, logs, "gpt")], processes=1)
    return losses(logs / "gpt" / "version_0")


def finish(*processes: subprocess.Popen) -> list[int]:
    try:
        return [process.wait(120) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "zero2", "fsdp", "tensor_parallel", "pipeline"])
def test_a_killed_process_ends_the_job_which_then_goes_on(config, alone, tmp_path, name):
    ranks = 1 if name in ("tensor_parallel", "pipeline") else 2
    command = fit(config, tmp_path, "gpt", ranks, "--config", f"configs/strategy/{name}.yaml", "--trainer.devices", "2")
    kill = {"class_path": "tests.distributed.probes.Kill", "init_args": {"rank": 1, "step": HALFWAY + 2}}
    (tmp_path / "kill.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [kill]}}))
    killed = [sys.executable, "-m", "src", *command, "--config", str(tmp_path / "kill.yaml")]
    killed += ["--allow_class_paths", "tests"]
    with (tmp_path / "log").open("w") as log:
        (status,) = finish(subprocess.Popen(killed, cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log))
    assert status not in (0, None)
    last = tmp_path / "gpt" / "version_0" / "checkpoints" / "last.ckpt"
    (tmp_path / "go_on.yaml").write_text("trainer: {callbacks: null}")
    run_job(
        tmp_path / "job",
        [
            [
                *command,
                "--config",
                str(tmp_path / "go_on.yaml"),
                "--ckpt_path",
                str(last),
                "--allow_class_paths",
                "tests",
            ]
        ],
    )
    assert losses(tmp_path / "gpt" / "version_1") == pytest.approx(alone[HALFWAY:], abs=1e-4)


@pytest.mark.slow
def test_the_last_step_of_a_limited_epoch_has_the_whole_gradient(config, tmp_path):
    """Epochs of 3 batches, two to a step, on one process and on two."""
    limit = ["--trainer.limit_train_batches", "3"]
    ddp = ["--config", "configs/strategy/ddp.yaml", "--trainer.devices", "2", *limit]
    run_job(tmp_path / "one", [fit(config, tmp_path / "alone", "gpt", 1, *limit)], processes=1)
    run_job(tmp_path / "two", [fit(config, tmp_path / "ddp", "gpt", 2, *ddp)])
    found = losses(tmp_path / "ddp/gpt/version_0")
    assert found == pytest.approx(losses(tmp_path / "alone/gpt/version_0"), abs=1e-4)
    assert found[1] > 0.8 * found[0]


def test_two_machines_by_torchrun(config, alone, tmp_path):
    """As `docs/strategies.md` says, with both machines on this one."""
    command = fit(config, tmp_path, "gpt", 2, "--config", "configs/strategy/fsdp.yaml", "--trainer.devices", "1")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    started = [
        subprocess.Popen(
            [*torchrun, "--node-rank", str(node), "-m", "src", *command, "--trainer.num_nodes", "2"],
            cwd=ROOT,
            env=ENVIRONMENT,
        )
        for node in (0, 1)
    ]
    assert finish(*started) == [0, 0]
    assert losses(tmp_path / "gpt" / "version_0") == pytest.approx(alone, abs=1e-4)


@pytest.mark.slow
def test_two_machines_by_slurm(config, alone, tmp_path):
    """With the variables that `srun` sets, as `docs/strategies.md` says."""
    command = fit(config, tmp_path, "gpt", 2, "--config", "configs/strategy/ddp.yaml", "--trainer.devices", "1")
    slurm = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    slurm |= {"SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost", "SLURM_LOCALID": "0"}
    slurm |= {"MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "src", *command, "--trainer.num_nodes", "2"],
            cwd=ROOT,
            env={**ENVIRONMENT, **slurm, "SLURM_PROCID": str(node), "SLURM_NODEID": str(node)},
        )
        for node in (0, 1)
    ]
    assert finish(*started) == [0, 0]
    assert losses(tmp_path / "gpt" / "version_0") == pytest.approx(alone, abs=1e-4)


BAD = {
    "fsdp --trainer.devices 64": "this machine has",
    "tensor_parallel --trainer.devices 3": "n_heads 2 cannot be divided over 3 tensor-parallel ranks",
    "tensor_parallel --trainer.devices 2 --model.init_args.config.activation prelu": "parameters of its own",
    "fsdp --trainer.devices 2 --trainer.strategy.init_args.data_parallel_size 3": "is not the number of",
    "fsdp --trainer.devices 2 --trainer.strategy.init_args.context_parallel_size 3": "x context_parallel_size 3 x",
    "fsdp --trainer.devices 4 --trainer.strategy.init_args.context_parallel_size 4": "n_heads 2 cannot be divided over "
    "4 context-parallel ranks",
    "zero2 --trainer.devices 2 --model.init_args.optimizer Muon": "Muon works on whole matrices",
    "zero2 --trainer.devices 2 --trainer.strategy.init_args.stage 4": "ZeRO has the stages 1, 2 and 3",
    "zero1 --trainer.devices 2 --trainer.strategy.init_args.offload_parameters true": "needs stage 3",
    "zero1 --trainer.devices 2 --trainer.gradient_clip_algorithm value": "by their norm only",
    "fsdp --trainer.devices 2 --trainer.callbacks+=EMA": "EMA averages whole weights",
    "pipeline --trainer.devices 2 --trainer.callbacks+=EMA": "EMA averages whole weights",
    "pipeline --trainer.devices 2 --trainer.strategy.init_args.pipeline_size 3": "is not the number of processes, 2",
    "pipeline --trainer.devices 3 --trainer.strategy.init_args.tensor_parallel_size 3": "n_heads 2 cannot be",
    "pipeline --trainer.devices 2 --trainer.strategy.init_args.micro_batches 1": "or the schedule GPipe",
    "pipeline --trainer.devices 2 --trainer.strategy.init_args.stages_per_process 2": "goes with Interleaved1F1B",
    "pipeline --trainer.devices 2 --trainer.strategy.init_args.schedule 2F2B": "schedule",
}


@pytest.mark.parametrize("request_", BAD)
def test_what_cannot_work_is_refused_in_one_line(config, run, tmp_path, request_, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    name, *options = request_.split()
    command = fit(config, tmp_path, "gpt", 1, "--config", f"configs/strategy/{name}.yaml", *options)
    status, _, err = run(*command)
    assert status == 2, err
    assert BAD[request_] in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_zero_without_deepspeed(config, tmp_path):
    """In a process where it is not to be found."""
    command = fit(config, tmp_path, "gpt", 1, "--config", "configs/strategy/zero2.yaml", "--trainer.devices", "2")
    hide = "import sys; sys.modules['deepspeed'] = None\nimport importlib.util as u; find = u.find_spec\n"
    hide += "u.find_spec = lambda name, *rest: None if name == 'deepspeed' else find(name, *rest)\n"
    code = f"{hide}import src.cli; src.cli.main({command!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "EXTRAS=deepspeed ./run.sh fit installs it" in done.stderr
