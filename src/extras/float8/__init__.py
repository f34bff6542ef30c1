"""Training whose matrix products are computed in float8, by torchao: `callbacks` has what a run is given."""

VERBS: dict[str, tuple[str, str]] = {}
