"""How fast training and decoding are, beside the machine's limit and beside other programs."""

VERBS = {"bench": ("src.extras.bench.cli:bench", "measure speed, beside the machine's limit and other programs")}
