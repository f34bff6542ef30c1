"""Multi30k as JoeyNMT reads it: pieces of our tokenizer with spaces between.

    python -m docs.extras.bench.peers.joeynmt --source MULTI30K --output joeynmt

writes train.de, train.en, val.de, val.en and vocab.txt there, for joeynmt.yaml beside this file.
"""

import argparse
from pathlib import Path

from src.data.parallel import ParallelCorpus
from src.tokenization import END_OF_TEXT, make_tokenizer


def write_pieces(source: str, languages: tuple[str, str], vocab_size: int, output: Path) -> None:
    """Write both sides of the training and the validation split, and the joint vocabulary."""
    output.mkdir(parents=True, exist_ok=True)
    corpus = ParallelCorpus(source, *languages, splits={"validation": "val"})
    splits = corpus.load(output)
    tokenizer = make_tokenizer("bpe", vocab_size, (text for pair in splits["train"] for text in pair))
    vocabulary = tokenizer.get_vocab()
    pieces = [piece for piece in sorted(vocabulary, key=vocabulary.__getitem__) if piece != END_OF_TEXT]
    (output / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    for split, name in (("train", "train"), ("validation", "val")):
        for side, language in enumerate(languages):
            rows = tokenizer.encode_batch([pair[side] for pair in splits[split]])
            text = "".join(f"{' '.join(row.tokens)}\n" for row in rows)
            (output / f"{name}.{language}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="a folder with train.de, train.en, val.de, ..., plain or .gz")
    parser.add_argument("--output", required=True, type=Path, help="where they are written")
    options = parser.parse_args()
    write_pieces(options.source, ("de", "en"), 6000, options.output)
