"""What a training run would take on devices that are not here: memory, communication, days and cost."""

VERBS = {"plan": ("src.extras.plan.cli:plan", "memory, communication, days and cost of a run, before it is started")}
