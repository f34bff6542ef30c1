"""HuggingFace's format, in and out: one adapter a format, and no code of `transformers`."""

VERBS = {
    "import": ("src.extras.huggingface.cli:import_", "make a checkpoint of a HuggingFace model"),
    "export": ("src.extras.huggingface.cli:export", "write a checkpoint in HuggingFace's format"),
}
