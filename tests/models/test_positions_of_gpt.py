"""GPT with each kind of position, with windows, documents and a cache: the same function, however it is computed."""

from contextlib import suppress
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.decoding import generate, left_pad
from src.models import GPT, GPTConfig
from src.models.gpt import POSITIONS
from src.nn import KERNELS

SMALL = {"vocab_size": 61, "max_seq_len": 40, "d_model": 32, "n_heads": 4, "n_layers": 2}


def network(**changes) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**SMALL, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and name != "head.weight":
                parameter *= 6  # logits of the size of a trained network's: of an untrained one's all are near 0
    return model


def ids(batch, length, seed=0):
    return torch.randint(61, (batch, length), generator=torch.Generator().manual_seed(seed))


def near(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_order_of_tokens_matters(positions):
    model, row = network(positions=positions), ids(1, 9)
    other = row[:, [1, 0, *range(2, 9)]]
    assert not torch.allclose(model(row)[:, -1], model(other)[:, -1], atol=1e-3)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("positions", POSITIONS)
def test_left_padding_changes_nothing(positions, window):
    model, row = network(positions=positions, window=window), ids(1, 12)
    padded, mask = left_pad([row[0].tolist(), ids(1, 20)[0].tolist()], pad_id=3)
    near(model(padded, mask)[0, 8:], model(row)[0])


def allowed(**changes) -> bool:
    """Whether there is such a network on a CPU: `flash_attn` refuses to run there."""
    with suppress(ValueError):
        return GPTConfig(**SMALL, **changes).attention != "flash_attn"
    return False


EVERY = [
    {"attention": name, "positions": positions, "attention_dropout": 0.0, **span}
    for name, positions, span in product(KERNELS, POSITIONS, [{}, {"window": 6, "dilation": [1, 1, 2, 3]}])
]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("changes", [c for c in EVERY if allowed(**c)], ids=str)
def test_the_cache_gives_the_same_logits(changes):
    """Of each kernel that a network may be trained with, in pieces, with padding."""
    model = network(**changes)
    padded, mask = left_pad([ids(1, 30)[0].tolist(), ids(1, 36)[0].tolist()], pad_id=3)
    cache = model.new_cache()
    cuts = [0, 9, 10, 11, 25, 26, 36]
    found = [model(padded[:, a:b], mask[:, :b], cache) for a, b in pairwise(cuts)]
    near(torch.cat(found, 1), model(padded, mask))
    near(torch.cat(found, 1), network(**{**changes, "attention": "dense"})(padded, mask))


@torch.no_grad()
def test_a_kernel_that_is_trained_with_is_decoded_with(monkeypatch):
    """One with an attention of its own decodes by it, and one that takes no cache is not replaced in silence."""

    def sharp(q, k, v, mask, span, dropout, keys=None):
        return KERNELS["dense"](3 * q, k, v, mask, span, dropout, keys)

    monkeypatch.setitem(KERNELS, "sharp", sharp)
    monkeypatch.setitem(KERNELS, "uncached", lambda q, k, v, mask, span, dropout: sharp(q, k, v, mask, span, dropout))
    row = ids(2, 12)
    for name in ("sharp", "uncached"):
        model = network(attention=name)
        whole, cache = model(row), model.new_cache()
        assert not torch.allclose(whole, network()(row), atol=1e-2)
        first = model(row[:, :7], cache=cache)
        if name == "sharp":
            near(torch.cat([first, model(row[:, 7:], cache=cache)], 1), whole)
        else:
            with pytest.raises(TypeError, match="positional arguments"):
                model(row[:, 7:], cache=cache)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_document_of_a_row_is_read_as_if_it_stood_alone(positions):
    for attention, window in (("dense", None), ("dense", 4), ("sliding_window", 4)):
        model = network(positions=positions, attention=attention, window=window)
        parts = [ids(1, n, seed=n) for n in (7, 1, 13, 5)]
        documents = torch.tensor([number for number, part in enumerate(parts) for _ in range(part.shape[1])])[None]
        near(model(torch.cat(parts, 1), documents=documents), torch.cat([model(part) for part in parts], 1))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(list(POSITIONS)), st.integers(0, 50), st.lists(st.integers(1, 3), min_size=4, max_size=4))
def test_the_sliding_window_is_the_masked_dense_network(positions, window, dilation):
    row = ids(2, 40)
    config = {"positions": positions, "window": window, "dilation": dilation}
    dense, sliding = (network(attention=name, **config) for name in ("dense", "sliding_window"))
    near(sliding(row), dense(row))


@pytest.mark.parametrize("positions", ["rotary", "alibi"])
def test_generation_far_past_window_and_context(positions):
    """The cache has one size, and each step has the logits of the whole text read anew."""
    model = network(positions=positions, attention="sliding_window", window=8)
    rows, mask = left_pad([ids(1, 3)[0].tolist(), ids(1, 11)[0].tolist()], pad_id=3)
    cache = model.new_cache()
    sizes, unseen = set(), rows
    with torch.no_grad():
        for _ in range(150):
            logits = model(unseen, mask, cache)[:, -1]
            near(logits, model(rows, mask)[:, -1])
            sizes.add(sum(entry.bytes for entry in cache))
            unseen = logits.argmax(1)[:, None]
            rows, mask = torch.cat([rows, unseen], 1), torch.cat([mask, torch.ones_like(unseen)], 1)
    assert rows.shape[1] > 3 * SMALL["max_seq_len"]
    assert sizes == {2 * 2 * 2 * 9 * 32 * 4}  # layers x keys and values x rows x (window + 1) x width x float32


@pytest.mark.parametrize("positions", POSITIONS)
def test_generate_is_the_same_with_the_cache_and_without(positions):
    model = network(positions=positions, attention="sliding_window", window=8)
    prompts = [ids(1, n)[0].tolist() for n in (3, 11)]
    both = [generate(model, prompts, max_new_tokens=90, temperature=0.0, use_cache=use) for use in (True, False)]
    assert both[0] == both[1]
    assert len(both[0][0]) == 90


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "absolute"}, "positions is 'absolute': choose one of learned, sinusoidal, rotary, alibi"),
        ({"positions": "rotary", "d_model": 36}, "positions 'rotary' turns pairs: d_model / n_heads is 9, odd"),
        (
            {"attention": "sparse"},
            "attention is 'sparse': choose one of dense, flash, flash_attn, sliding_window, flex",
        ),
        ({"attention": "sliding_window"}, "attention 'sliding_window' needs a window"),
        ({"window": -1}, "window is -1: it must be at least 0"),
        ({"window": [4, 8, 16]}, "one for each of the n_layers blocks"),
        ({"window": 4, "dilation": [1, 2]}, "one for each of 4 heads"),
        ({"window": 4, "dilation": 0}, "dilation is 0: it must be at least 1"),
        ({"dilation": 2}, "dilation is 2: it widens a window, and window is null"),
        ({"attention": "flash", "window": 4}, "attention 'flash' takes no window and no alibi"),
        ({"attention": "flash", "positions": "alibi"}, "attention 'flash' takes no window and no alibi"),
        ({"attention": "flash_attn", "window": 4, "dilation": 2}, "attention 'flash_attn' has none"),
        ({"attention": "flex"}, "attention_dropout is 0.1: attention 'flex' has none, set it to 0"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{**SMALL, **changes})


def test_more_tokens_than_positions():
    row = torch.zeros(1, 41, dtype=torch.long)
    for positions in POSITIONS:
        with pytest.raises(ValueError, match="41 tokens are more than the 40 positions"):
            network(positions=positions)(row)
    for positions in ("learned", "sinusoidal"):
        with pytest.raises(ValueError, match="41 tokens are more than the 40 positions"):
            network(positions=positions, window=4)(row)
    for positions in ("rotary", "alibi"):
        assert network(positions=positions, window=4)(row).isfinite().all()


def test_a_window_of_each_block():
    near(network(window=[3, 50], attention="sliding_window")(ids(1, 30)), network(window=[3, 50])(ids(1, 30)))
    assert not torch.allclose(network(window=[3, 50])(ids(1, 30)), network(window=[50, 3])(ids(1, 30)), atol=1e-3)
