"""`transformers` decodes token for token as this project does: what was exported, and networks of equal weights."""

import pytest
import torch
import transformers

from src.decoding import beam_search, generate, greedy_search, wu_penalty
from src.extras.huggingface.exporting import export
from src.models import Transformer, TransformerConfig
from src.tokenization import END_OF_TEXT
from tests.extras.huggingface.marian import from_huggingface, marian
from tests.random_networks import BPE, checkpoint_of, padded

END = BPE.token_to_id(END_OF_TEXT)


def both(name, folder):
    """The network here, and HuggingFace's of its export."""
    ours, checkpoint = checkpoint_of(name)
    export(checkpoint, folder / "out")
    kinds = {"gpt": transformers.AutoModelForCausalLM, "transformer": transformers.AutoModelForSeq2SeqLM}
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


def pair(seed, end_bias=4.5):
    """A random model here and the same in HuggingFace, in which sentences end now and then."""
    torch.manual_seed(seed)
    shape = {"d_model": 16, "n_heads": 2, "n_encoder_layers": 1, "n_decoder_layers": 2, "d_ff": 24}
    ours = Transformer(TransformerConfig(37, max_seq_len=40, **shape)).eval()
    theirs = marian(ours.config, std=0.35, seed=seed)
    with torch.no_grad():
        stream = theirs.model.decoder.layers[-1].final_layer_norm.bias.fill_(1)
        theirs.lm_head.weight[1] += end_bias * stream / stream.sum()
    from_huggingface(theirs, ours)
    return ours, theirs


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("beam", [4, 8])
def test_hypotheses_equal_huggingface(beam, alpha):
    ended = 0
    for seed in range(5):
        ours, theirs = pair(seed)
        input_ids, mask = padded([12, 5, 9, 1, 12, 3], 12, 37, seed)
        n_best = min(beam, 3)
        found = beam_search(
            ours, input_ids, mask, start_id=0, end_id=1, beam=beam, n_best=n_best, max_len=14,
            length_penalty=lambda length: length**alpha,
        )  # fmt: skip
        expected = theirs.generate(
            input_ids=input_ids, attention_mask=mask, num_beams=beam, num_return_sequences=n_best, max_new_tokens=14,
            length_penalty=alpha, early_stopping="never", output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        rows = [row[1:] for row in expected.sequences.tolist()]
        rows = [row[: row.index(1)] if 1 in row else row for row in rows]
        flat = [hypothesis for hypotheses in found for hypothesis in hypotheses]
        assert [hypothesis.ids for hypothesis in flat] == rows
        scores = torch.tensor([hypothesis.score for hypothesis in flat])
        torch.testing.assert_close(scores, expected.sequences_scores, atol=1e-4, rtol=0)
        ended += sum(len(row) < 14 for row in rows)
    assert ended > 20  # not only cut off at the limit


def test_a_beam_of_1_is_greedy_search_as_huggingface_makes_it():
    for seed in range(5):
        ours, theirs = pair(seed)
        input_ids, mask = padded([12, 5, 9, 1, 12, 3], 12, 37, seed)
        expected = theirs.generate(input_ids=input_ids, attention_mask=mask, num_beams=1, max_new_tokens=14)
        rows = [row[1:] for row in expected.tolist()]
        rows = [row[: row.index(1)] if 1 in row else row for row in rows]
        greedy = greedy_search(ours, input_ids, mask, start_id=0, end_id=1, max_len=14)
        one = beam_search(ours, input_ids, mask, start_id=0, end_id=1, beam=1, max_len=14, length_penalty=wu_penalty(0))
        assert greedy == [hypotheses[0].ids for hypotheses in one] == rows
