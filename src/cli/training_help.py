"""fit, validate, test, predict, prepare, and their help: nothing heavy is imported for it without a configuration."""

import os
import re

from src.cli.messages import CONFIGS, called_as, values_of

# what each verb does and writes
DESCRIPTIONS = {
    "fit": "Train the model of a configuration. Checkpoints, metrics and its record go to logs/EXPERIMENT/version_N.",
    "validate": "Evaluate a checkpoint on the validation split. Metrics go to logs/EXPERIMENT/version_N/metrics.csv.",
    "test": "Evaluate a checkpoint on the test split. Metrics go to logs/EXPERIMENT/version_N/metrics.csv.",
    "predict": "Predict the test split with a checkpoint. Predictions go to logs/EXPERIMENT/version_N.",
    "prepare": "Prepare the data of a configuration, without training: tokenizer and tokens go to data.cache_dir.",
}
# the parts of a configuration whose classes are always the same; each has a help of its own
GROUPS = ("trainer", "checkpoint", "guard", "hparams")
GENERAL = {
    "--config FILE": "a configuration; repeat it to lay one over another",
    "--ckpt_path FILE": "a checkpoint to go on from, or to evaluate; it carries its configuration",
    "--resume auto": "go on with the experiment's newest run, if it has one",
    "--experiment NAME": "runs go to logs/NAME/version_N",
    "--seed_everything N": "the seed of all that is random",
    "--trainer.max_steps N": "how many optimizer steps to train",
    "--trainer.devices N": "how many processes to train on",
    "--trainer.precision P": "32-true, bf16-mixed, 16-mixed, ...; by default the hardware decides",
    "--allow_class_paths MODULE": "a module whose classes a configuration may name",
}
MORE = {
    "--config FILE --help": "the model, optimizer, schedule and data of that configuration",
    "--config FILE --print_config": "all that it sets, and the defaults, as YAML",
    **{f"--{group}.help": f"every option --{group}.X" for group in GROUPS},
    "--model.help CLASS": "those of a class; likewise --data.help, --trainer.strategy.help, --trainer.callbacks.help",
}


def main(arguments: list[str]) -> None:
    """Run a verb of the trainer, or print its help."""
    verb, *rest = arguments
    asked = help_asked(rest)
    if asked == ["help"] and not values_of(("--config", "-c", "--ckpt_path"), rest):
        print(general_help(verb))
        return
    from src.cli.training import main

    # what is prepared is what fit is given
    arguments = ["fit" if verb == "prepare" else verb, *rest]
    if asked:
        from src.cli.config_help import HelpCLI

        main(arguments, cli=HelpCLI)
    elif verb == "prepare":
        from src.cli.prepare import PreparingCLI

        main(arguments, cli=PreparingCLI)
    else:
        main(arguments)


def help_asked(arguments: list[str]) -> list[str]:
    """List which helps a command line asks for: "help" itself, or that of groups."""
    options = {"-h": "help", "--help": "help", **{f"--{group}.help": group for group in GROUPS}}
    return [options[argument] for argument in arguments if argument in options]


def general_help(verb: str) -> str:
    """Say what a verb does, name the configurations to choose from, and the options that all have."""
    needed = "--config FILE" if verb in ("fit", "prepare") else "--ckpt_path FILE [--config FILE]"
    usage = f"usage: {called_as()} {verb} {needed} [--OPTION VALUE ...]\n\n{DESCRIPTIONS[verb]}"
    found = sorted(CONFIGS.rglob("*.yaml"), key=lambda path: (len(path.parts), path))
    texts = {os.path.relpath(path): path.read_text(encoding="utf-8") for path in found}
    # the others are layers to put over one of these, or sweeps
    configs = {path: summary(text) for path, text in texts.items() if "\nmodel:" in text}
    layers = f"\nTo lay over one of them: {os.path.relpath(CONFIGS / 'strategy')}/*.yaml, or a file of your own."
    return "\n".join([usage, "", table("configurations", configs) + layers, "", rest_of_help()])


def summary(config: str) -> str:
    """Return the first clause of the comment that a configuration begins with."""
    return re.split(r"[:;.]\s| \(", config.partition("\n")[0].strip("# "))[0]


def rest_of_help() -> str:
    """Name the options that all configurations have, and the helps that tell of others."""
    return f"{table('general options', GENERAL)}\n\n{table('more help', MORE)}"


def table(title: str, rows: dict[str, str]) -> str:
    """Lay out names and what is said of each below a title."""
    width = max(map(len, rows))
    return "\n".join([f"{title}:", *(f"  {name:<{width}}  {what}" for name, what in rows.items())])
