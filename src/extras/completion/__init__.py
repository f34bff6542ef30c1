"""Completion of the command line in a shell."""

VERBS = {"completion": ("src.extras.completion.cli:completion", "write the completion of bash or zsh for run.sh")}
