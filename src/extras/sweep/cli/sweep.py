"""sweep: run a configuration many times with other values, and write down what came out."""

import os
from pathlib import Path
from typing import Any

from src.cli.parser import VerbParser, positive
from src.errors import InputError


def parser() -> VerbParser:
    """The options of `sweep`."""
    options = VerbParser(prog="python -m src sweep", description=__doc__)
    options.add_argument("--config", required=True, metavar="FILE", help="the sweep: see configs/extras/sweep")
    options.add_argument(
        "--base", nargs="+", metavar="FILE", help="configurations to vary, in place of the sweep's own"
    )
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a dotted key's value in all runs; repeat it"
    )
    options.add_argument("--seeds", nargs="+", type=int, metavar="N", help="in place of the sweep's own")
    options.add_argument("--sampler", choices=("grid", "random", "tpe"), help="in place of the sweep's own")
    options.add_argument("--cells", type=positive, metavar="N", help="how many random or tpe choose")
    options.add_argument("--pruner", choices=("median", "halving"), help="stop unpromising runs")
    options.add_argument("--study", metavar="FOLDER", help="where it goes (logs/sweep/SWEEP-BASE)")
    options.add_argument(
        "--storage", metavar="URL", help="a database for several machines; a file in the study's folder otherwise"
    )
    options.add_argument("--jobs", type=positive, default=1, metavar="N", help="runs at a time (%(default)s)")
    options.add_argument(
        "--threads", type=positive, metavar="N", help="of each run; the processors divided by the jobs"
    )
    return options


def fit(arguments: list[str], callbacks: list[Any]) -> None:
    """Train, in a run's own process."""
    from src.cli.training import main  # imported by the process that the runs are forked from, and not by this one

    main(arguments, callbacks)


def check(config: dict[str, Any]) -> dict[str, Any]:
    """Check a configuration, in a process of its own."""
    from src.cli.check_fit import check_fit

    return check_fit(config)


def main(arguments: list[str]) -> None:
    """Run what is left to run of a sweep, and write its report.

    Raises:
        InputError: the sweep, a configuration or the study cannot be used; nothing has been run.
    """
    options = parser().parse_args(arguments[1:])
    processors = os.cpu_count() or 1
    if options.jobs > processors:
        raise InputError(f"--jobs {options.jobs} is more than this machine's {processors} processors")
    from src.extras.sweep.configuration import read_value, read_yaml
    from src.extras.sweep.definition import sweep_of
    from src.extras.sweep.running import run_sweep

    content = read_yaml(Path(options.config))
    for name in ("base", "seeds", "sampler", "cells", "pruner"):
        if getattr(options, name) is not None:
            content[name] = getattr(options, name)
    for setting in options.set:
        key, equals, text = setting.partition("=")
        if not key or not equals:
            raise InputError(f"--set {setting!r} is not of the form KEY=VALUE")
        content["set"] = {**(content.get("set") or {}), key: read_value(text)}
    sweep = sweep_of(content, options.config)
    folder = Path(options.study or f"logs/sweep/{Path(options.config).stem}-{Path(sweep.base[0]).stem}")
    threads = options.threads or max(1, processors // options.jobs)
    run_sweep(sweep, folder, options.storage, options.jobs, threads, fit=fit, check=check)
