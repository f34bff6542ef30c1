"""Standard evaluations of checkpoints: what published models are compared by.

`suites` lists them, `results` keeps their scores and writes them down, `cli` is the verb, and `callback` runs a suite
while a network trains. `harness` gives a GPT to lm-eval, whose tasks `language_tasks` runs; `perplexity` is that of any
text, by the windows of `scoring`. `glue` fine-tunes an encoder by `fine_tuning` on `glue_data`, `beir` ranks the
documents of `beir_data` with one, and `embedding_model` gives one to mteb, whose tasks `embedding_tasks` runs.
`translation` has WMT's test sets, and `comet` scores them by COMET's own program.
"""

VERBS = {"evaluate": ("src.extras.evaluation.cli:evaluate", "score a checkpoint on a standard benchmark")}
