"""`transformers` decodes what was exported as this project decodes the original: token for token."""

import pytest
import torch
import transformers

from src.architectures import architectures
from src.decoding import beam_search, generate, greedy_search
from src.extras.huggingface.exporting import export
from src.tokenization import END_OF_TEXT
from tests.extras.huggingface.test_weights import BPE, checkpoint_of

END = BPE.token_to_id(END_OF_TEXT)


def both(name, folder):
    """The network here, and HuggingFace's of its export."""
    ours, checkpoint = checkpoint_of(name)
    export(checkpoint, folder / "out")
    kinds = {"gpt": transformers.AutoModelForCausalLM, "transformer": transformers.AutoModelForSeq2SeqLM}
    assert isinstance(ours, architectures()[checkpoint["architecture"]].network)
    return ours, kinds[checkpoint["architecture"]].from_pretrained(folder / "out").eval()


@pytest.mark.parametrize("name", ["gpt", "gpt untied", "gpt without biases"])
def test_a_language_model_greedily(name, tmp_path):
    ours, theirs = both(name, tmp_path)
    prompts = [[5, 9, 40], [17], [33, 2, 8, 100, 7]]
    found = generate(ours, prompts, max_new_tokens=15, temperature=0.0, eos_id=END)
    for prompt, continuation in zip(prompts, found, strict=True):
        ids = theirs.generate(torch.tensor([prompt]), max_new_tokens=15, do_sample=False)[0, len(prompt) :].tolist()
        assert continuation == (ids[: ids.index(END)] if END in ids else ids)


def sources():
    rows = torch.randint(1, 300, (5, 12), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(12) < torch.tensor([12, 3, 7, 12, 5])[:, None]).long()
    return torch.where(mask.bool(), rows, END), mask


@pytest.mark.parametrize("name", ["transformer", "transformer tied"])
def test_a_translator_greedily(name, tmp_path):
    ours, theirs = both(name, tmp_path)
    ids, mask = sources()
    found = greedy_search(ours, ids, mask, start_id=END, end_id=END, max_len=16)
    expected = theirs.generate(ids, attention_mask=mask, num_beams=1, do_sample=False, max_new_tokens=16)
    for row, wanted in zip(found, expected[:, 1:].tolist(), strict=True):
        assert row == (wanted[: wanted.index(END)] if END in wanted else wanted)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("name", ["transformer", "transformer tied"])
def test_a_translator_by_beam_search(name, penalty, tmp_path):
    """`transformers` divides by ``length ** penalty``, which is given here; `never` is the stopping rule here."""
    ours, theirs = both(name, tmp_path)
    ids, mask = sources()
    found = beam_search(
        ours,
        ids,
        mask,
        start_id=END,
        end_id=END,
        beam=4,
        length_penalty=lambda length: length**penalty,
        max_len=16,
    )
    settings = {"num_beams": 4, "do_sample": False, "early_stopping": "never", "length_penalty": penalty}
    expected = theirs.generate(ids, attention_mask=mask, max_new_tokens=16, **settings)
    for row, wanted in zip(found, expected[:, 1:].tolist(), strict=True):
        assert row[0].ids == (wanted[: wanted.index(END)] if END in wanted else wanted)
