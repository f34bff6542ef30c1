"""Ablation sweeps: many runs of one configuration, each with other values, and what came out of them.

`definition` reads a sweep file, `axes` what it varies, `configuration` makes one complete configuration a run and
`ladder` scales it, `study` opens the database, `queue` hands out the runs in it, `scheduling` starts them in processes
of their own, `trial` and `recorder` are what happens in those. What came out is said by `results` (statistics),
`verdicts` and `scaling_law` (in words), `plots`, `report` and `page`. `tracks` compares entries on frozen data.
"""

VERBS = {
    "sweep": ("src.extras.sweep.cli:sweep", "run a configuration many times with other values"),
    "report": ("src.extras.sweep.cli:report", "write the tables and plots of a sweep"),
    "track": ("src.extras.sweep.track_cli:track", "compare entries on frozen data, budget and evaluation"),
}
