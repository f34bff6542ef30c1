"""wmt14 and the other test sets of sacrebleu: BLEU and chrF, and whether a difference could be chance."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sacrebleu.dataset import DATASETS
from sacrebleu.metrics import BLEU, CHRF
from tokenizers import Tokenizer

from src.checkpoint import load_writer, read_checkpoint
from src.cli.compare import paired_bootstrap, verdict
from src.cli.translate import SearchOptions
from src.cli.verb import Positive
from src.decoding import Translator
from src.errors import InputError
from src.extras.evaluation.comet import Comet
from src.extras.evaluation.results import Evaluation, Part, Score, file_of, write_lines
from src.files import check_file, read_lines


def translation(
    checkpoint: str,
    search: SearchOptions,
    language_pair: str,
    test_set: str = "wmt14",
    baseline: Path | None = None,
    samples: Positive = 1000,
    comet: str | None = None,
    comet_model: str = "Unbabel/wmt22-comet-da",
) -> Evaluation:
    """Translate a test set, and score it by BLEU, chrF and, if asked to, COMET with 95% bootstrap intervals.

    The translations are kept beside the scores, a line a sentence. sacrebleu fetches a test set at its first use, into
    the folder that SACREBLEU names.

    Args:
        checkpoint: a checkpoint of a Transformer
        language_pair: of the test set, as en-de
        test_set: by sacrebleu's name
        baseline: translations of another checkpoint, as an evaluation wrote them, for a paired bootstrap test
        samples: of the bootstrap
        comet: COMET's program comet-score, of the virtual environment that has it
        comet_model: its model, by its name on the hub or as a .ckpt file
    """
    content = read_checkpoint(checkpoint)
    trained = load_writer(content, checkpoint, "translate")
    translator = Translator(*trained, Tokenizer.from_str(content["source_tokenizer"]), **vars(search))
    sources, references = _read(test_set, language_pair)
    others = None
    if baseline:
        check_file(baseline, is_text=True)
        others = list(read_lines(baseline))
        if len(others) != len(sources):
            raise InputError(f"{baseline} has {len(others):,} lines, and {test_set} {len(sources):,} sentences")
    name = f"{test_set}.{language_pair}"
    metrics: dict[str, Any] = {"BLEU": BLEU(trg_lang=language_pair.partition("-")[2]), "chrF": CHRF()}

    def run(folder: Path) -> list[Score]:
        found = translator.translate(sources)
        write_lines(path := file_of(folder, name, ".txt"), [trained.tokenizer.decode(one[0].ids) for one in found])
        texts = list(read_lines(path))
        scores = []
        for metric, computed in metrics.items():
            score = computed.corpus_score(texts, references, n_bootstrap=samples)
            low, high = (float(score._mean + side * score._ci) for side in (-1, 1))
            scores.append(Score(name, metric, float(score.score), low, high, str(computed.get_signature())))
        if others is not None:
            systems: list[tuple[str, Sequence[str]]] = [(str(baseline), others), ("this", texts)]
            signatures, results = paired_bootstrap(systems, metrics, references, samples)
            for metric, name_there in zip(metrics, signatures, strict=True):
                first, second = results[name_there]
                note = f"this {verdict(first, second)} {baseline}"
                scores.append(Score(name, f"{metric} - baseline", float(second.score - first.score), note=note))
        return scores

    settings = {
        "search": vars(search) | {"device": None, "batch_size": None},
        "samples": samples,
        "texts": _checksum([sources, *references]),
        "baseline": None if others is None else _checksum([others]),
    }
    parts = [Part(name, settings, run)]
    if comet:
        scored = Comet(name, comet, comet_model, search.device, sources, references[0], baseline, samples)
        parts.append(Part(f"{name}.comet", {**settings, "model": comet_model}, scored))
    return Evaluation(content.get("global_step"), parts)


def _read(test_set: str, language_pair: str) -> tuple[list[str], list[list[str]]]:
    """Read the sentences of a test set, and its references: for each, those of all sentences."""
    dataset = DATASETS[test_set]
    if language_pair not in dataset.langpairs:
        raise InputError(f"{test_set} has no language pair {language_pair!r}: it has {', '.join(dataset.langpairs)}")
    try:
        sources = list(dataset.source(language_pair))
        references = [list(one) for one in zip(*dataset.references(language_pair), strict=True)]
    except (OSError, SystemExit) as error:  # sacrebleu ends the program where it cannot fetch
        raise InputError(
            f"sacrebleu cannot fetch {test_set} into {dataset._outdir}: put its files there, or let SACREBLEU name the "
            "folder that has them"
        ) from error
    if not sources or len({len(sources), *map(len, references)}) > 1:
        raise InputError(f"{dataset._outdir} has an incomplete {test_set}: delete it, and it is fetched again")
    return sources, [[line.strip() for line in lines] for lines in references]


def _checksum(columns: list[list[str]]) -> str:
    return hashlib.sha256("\0".join("\n".join(lines) for lines in columns).encode()).hexdigest()
