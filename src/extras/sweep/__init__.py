"""Ablation sweeps: many runs of one configuration, each with other values, and what came out of them.

`definition` reads a sweep file, `configuration` makes one complete configuration a run, `study` opens the database,
`queue` hands out the runs in it, `scheduling` starts them in processes of their own, `trial` and `recorder` are what
happens in those, and `results`, `plots` and `tables` say what came out.
"""

VERBS = {
    "sweep": ("src.extras.sweep.cli:sweep", "run a configuration many times with other values"),
    "report": ("src.extras.sweep.cli:report", "write the tables and plots of a sweep"),
}
