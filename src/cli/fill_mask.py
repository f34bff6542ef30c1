"""fill-mask: the likeliest words behind [MASK], by a trained BERT."""

from src.cli.verb import Positive


def fill_mask(checkpoint: str, text: str, top_k: Positive = 5, device: str = "cpu") -> None:
    """Print the candidates for each mask of a text with their probabilities, the likeliest first.

    Args:
        checkpoint: a checkpoint of a BERT or Longformer
        text: with [MASK] in it: "Paris is the [MASK] of France."
        top_k: candidates for each mask
        device: cpu, cuda, cuda:1, mps, ...
    """
    from src.checkpoint import read_checkpoint  # with torch, for which help does not wait
    from src.mask_filler import mask_filler_of

    filler = mask_filler_of(read_checkpoint(checkpoint), checkpoint, device)
    (masks,) = filler.fill([filler.encode(text)], top_k)
    for i, candidates in enumerate(masks, 1):
        if len(masks) > 1:
            print(f"{filler.mask} {i}")
        for word, probability in candidates:
            print(f"{probability:.4f}  {word}")
