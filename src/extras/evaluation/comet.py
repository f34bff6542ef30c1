"""COMET (Rei et al. 2020) by its own program, whose package wants older ones than this project has."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from src.errors import InputError
from src.extras.evaluation.results import Score, bootstrap, file_of, write_lines


@dataclass(frozen=True)
class Comet:
    """Score the translations that an evaluation has written into a folder, and their difference to a baseline's.

    The difference is the mean over the sentences, with the interval of the paired bootstrap.

    Args:
        name: of the test set.
        program: ``comet-score``.
        model: its name on the hub, or a .ckpt file.
        device: of the model; one GPU, if it is not the CPU.
        sources: sentences that were translated.
        references: what people wrote.
        baseline: a file of other translations.
        samples: of the bootstrap.
    """

    name: str
    program: str
    model: str
    device: str
    sources: list[str]
    references: list[str]
    baseline: Path | None
    samples: int

    def __post_init__(self) -> None:
        if shutil.which(self.program) is None:
            raise InputError(
                f"there is no program {self.program}: install unbabel-comet into a virtual environment of its own, and "
                "give its bin/comet-score"
            )
        if self.model.endswith(".ckpt") and not Path(self.model).is_file():
            raise InputError(f"there is no file {self.model}: give a model of COMET's, or its name on the hub")

    def __call__(self, folder: Path) -> list[Score]:
        source, reference, ours = (file_of(folder, self.name, end) for end in (".src", ".ref", ".txt"))
        if not ours.is_file():
            raise InputError(f"{ours} is gone: delete {folder / 'parts'} to translate again")
        write_lines(source, self.sources)
        write_lines(reference, self.references)
        translations = [str(path) for path in (ours, self.baseline) if path]
        values = self._run(source, reference, translations, file_of(folder, self.name, ".comet.json"))
        note = f"{self.model}, {len(self.sources):,} sentences"
        scores = [Score(self.name, "COMET", *bootstrap(values[0], self.samples), note)]
        if self.baseline:
            differences = [mine - other for mine, other in zip(*values, strict=True)]
            note = f"against {self.baseline}; paired bootstrap"
            scores.append(Score(self.name, "COMET - baseline", *bootstrap(differences, self.samples), note))
        return scores

    def _run(self, source: Path, reference: Path, translations: list[str], output: Path) -> list[list[float]]:
        """Score the sentences of each file of translations."""
        output.unlink(missing_ok=True)
        files = ["-s", str(source), "-r", str(reference), "-t", *translations, "--to_json", str(output)]
        gpus = "0" if self.device == "cpu" else "1"
        command = [self.program, *files, "--model", self.model, "--gpus", gpus, "--quiet", "--only_system"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            last = (run.stderr.strip() or run.stdout.strip() or "it says nothing").splitlines()[-1]
            raise InputError(f"{self.program} --model {self.model} failed with status {run.returncode}: {last}")
        try:
            found = json.loads(output.read_text(encoding="utf-8"))
            return [[float(row["COMET"]) for row in found[path]] for path in translations]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.program} wrote no scores that can be read into {output}: {error!r}") from error
