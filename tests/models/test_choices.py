"""The choices in a block: against HuggingFace's networks that have them, and what holds for any of them together."""

import math
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import ModernBertConfig, ModernBertForMaskedLM, Qwen3Config, Qwen3ForCausalLM

from src.models import BERT, GPT, BERTConfig, GPTConfig, Longformer, LongformerConfig, Transformer, TransformerConfig
from src.nn import KVCache, Mask, Packing, TokenShift
from src.optim import Muon, parameter_groups, scale_rates

SHAPE = {"vocab_size": 61, "max_seq_len": 40, "d_model": 32, "n_heads": 4, "dropout": 0.0, "attention_dropout": 0.0}


def ids(batch, length, seed=0):
    return torch.randint(61, (batch, length), generator=torch.Generator().manual_seed(seed))


PIECES = [(0, 4), (4, 5), (5, 6), (6, 9)]  # of a row that is decoded with a cache


def drawn(network):
    """A network whose outputs are told apart: with weights of all kinds, those of norms among them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return network.double().eval()


def near(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


# ---- as HuggingFace has them


def grouped(projections, n_kv_heads):
    """HuggingFace's q, k and v as rows of `qkv`: of each group of heads its queries, its key, its value."""
    parts = [weight.unflatten(0, (n_kv_heads, -1)) for weight in projections]
    return torch.cat(parts, 1).flatten(0, 1)


@torch.no_grad()
def test_todays_gpt_is_qwen3():
    """RMSNorm, rotary positions, grouped queries, QK-norm, heads of a width of their own, SwiGLU, no biases."""
    torch.manual_seed(0)
    theirs = drawn(
        Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=61,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=12,
                rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
                tie_word_embeddings=False,
            )
        )
    )
    ours = (
        GPT(
            GPTConfig(
                **SHAPE,
                n_layers=2,
                n_kv_heads=2,
                head_dim=12,
                d_ff=48,
                activation="swish",
                gated=True,
                norm_type="rms",
                norm_eps=1e-6,
                bias=False,
                qk_norm=True,
                positions="rotary",
                rope_base=5000.0,
                tie_embeddings=False,
            )
        )
        .double()
        .eval()
    )
    source = theirs.state_dict()
    weights = {
        "token_embedding.weight": source["model.embed_tokens.weight"],
        "final_norm.weight": source["model.norm.weight"],
        "head.weight": source["lm_head.weight"],
    }
    for i in range(2):
        a, b = f"blocks.{i}.", f"model.layers.{i}."
        qkv = [source[f"{b}self_attn.{name}_proj.weight"] for name in "qkv"]
        weights[a + "attention.qkv.weight"] = grouped(qkv, 2)
        names = {
            "attention.out": "self_attn.o_proj",
            "attention.q_norm": "self_attn.q_norm",
            "attention.k_norm": "self_attn.k_norm",
            "attention_norm": "input_layernorm",
            "feed_forward_norm": "post_attention_layernorm",
            **{f"feed_forward.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
        }
        weights |= {f"{a}{ours}.weight": source[f"{b}{theirs}.weight"] for ours, theirs in names.items()}
    ours.load_state_dict(weights)
    near(ours(ids(2, 20)), theirs(ids(2, 20)).logits)


@torch.no_grad()
def test_todays_bert_is_modernbert():
    """Windows but for every third block, two rotary bases, GeGLU, no biases, and a first norm that is left out."""
    torch.manual_seed(0)
    theirs = drawn(
        ModernBertForMaskedLM(
            ModernBertConfig(
                vocab_size=61,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=4,
                num_attention_heads=4,
                max_position_embeddings=40,
                local_attention=8,
                pad_token_id=0,
                attn_implementation="sdpa",
            )
        )
    )
    config = {**SHAPE, "n_segments": 0, "n_layers": 4, "d_ff": 48, "activation": "gelu", "gated": True, "norm": "pre"}
    config |= {"norm_eps": 1e-5, "bias": False, "first_norm": False, "window": 4, "window_pattern": "GLL"}
    config |= {"positions": "rotary", "rope_base": 160000.0, "rope_local_base": 10000.0}
    ours, source = BERT(BERTConfig(**config)).double().eval(), theirs.state_dict()
    names = {
        "encoder.token_embedding.weight": "model.embeddings.tok_embeddings.weight",
        "encoder.embedding_norm.weight": "model.embeddings.norm.weight",
        "encoder.final_norm.weight": "model.final_norm.weight",
        "masked_words.dense.weight": "head.dense.weight",
        "masked_words.norm.weight": "head.norm.weight",
        "masked_words.decoder.weight": "decoder.weight",
        "masked_words.decoder.bias": "decoder.bias",
    }
    for i in range(4):
        a, b = f"encoder.blocks.{i}.", f"model.layers.{i}."
        qkv = source[b + "attn.Wqkv.weight"].chunk(3)
        source[b + "qkv"] = grouped(qkv, 4)
        source[b + "gate"], source[b + "up"] = source[b + "mlp.Wi.weight"].chunk(2)
        names |= {f"{a}attention.qkv.weight": b + "qkv", f"{a}attention.out.weight": b + "attn.Wo.weight"}
        names |= {f"{a}feed_forward.{name}.weight": b + name for name in ("gate", "up")}
        names |= {f"{a}feed_forward.down.weight": b + "mlp.Wo.weight"}
        names |= {f"{a}feed_forward_norm.weight": b + "mlp_norm.weight"}
        if i:
            names[f"{a}attention_norm.weight"] = b + "attn_norm.weight"
    missing = ours.load_state_dict({name: source[other] for name, other in names.items()}, strict=False)
    assert missing.unexpected_keys == []
    assert all(name.startswith(("encoder.pooler", "next_sentence")) for name in missing.missing_keys)
    real = (torch.arange(30) < torch.tensor([[30], [21]])).long()
    found, expected = ours(ids(2, 30), attention_mask=real).masked_words, theirs(ids(2, 30), real).logits
    near(found[real.bool()], expected[real.bool()])


# ---- any of them together

CHOICES = {
    "norm": ("pre", "post"),
    "norm_type": ("layer", "rms", "rms_plain"),
    "bias": (True, False),
    "mlp_bias": (None, True, False),
    "n_kv_heads": (None, 2, 1),
    "head_dim": (None, 6),
    "qk_norm": (False, True),
    "activation": ("gelu", "relu2", "swiglu"),
    "gated": (False, True),
    "positions": ("learned", "sinusoidal", "rotary", "alibi"),
    "window": (None, 5),
    "attention": ("dense", "sliding_window"),
    "attention_softcap": (None, 2.0),
    "zero_init": (False, True),
    "token_shift": (False, True),
}
ENCODER_DECODER = {
    "embedding_norm": (False, True),
    "scale_embeddings": (True, False),
    "shared_positions": (True, False),
}
ONE_STACK = {"parallel": (False, True), "value_residual": (False, True)}
OF_GPT = {
    "logit_softcap": (None, 3.0),
    "mup_width": (None, 16),
    "n_value_embeddings": (0, 1),
    "n_future_tokens": (1, 3),
}
ROTARY = {
    "rope_fraction": (1.0, 0.5),
    "rope_base": (1e4, 500.0),
    "rope_scaling": (None, "linear", "ntk", "yarn", "llama3"),
}


def combined(pick, **more):
    """Choices that go together, of which ``pick`` takes one each."""
    found = {name: pick(values) for name, values in {**CHOICES, **more}.items()}
    if found.get("parallel"):
        found["norm"] = "pre"
    if found["positions"] == "rotary":
        found |= {name: pick(values) for name, values in ROTARY.items()}
        if found["rope_scaling"]:
            found |= {"rope_factor": 4.0, "rope_original_len": 16}
        if found["head_dim"] == 6:
            found["rope_fraction"] = 1.0
    if found["positions"] != "learned":
        found.pop("shared_positions", None)
    if found["window"] is None:
        found["attention"] = "dense"
    else:
        found["window_pattern"] = pick((None, "LG"))
    return found


@st.composite
def choices(draw, **more):
    return combined(lambda values: draw(st.sampled_from(values)), **more)


@settings(max_examples=40, deadline=None)
@given(choices(**ONE_STACK, **OF_GPT))
def test_any_choices_of_a_gpt_keep_what_a_gpt_is(changes):
    """No token changes what is before it, pieces with a cache and documents in one row give what the whole gives."""
    torch.manual_seed(0)
    model = drawn(GPT(GPTConfig(**SHAPE, n_layers=2, **changes)))
    row = ids(2, 20)
    with torch.no_grad():
        logits = model(row)
        near(model.head(model.hidden(row)), logits)  # as decoding and scoring compute them
        changed = row.clone()
        changed[:, 11] = (changed[:, 11] + 1) % 61
        after = model(changed)
        near(after[:, :11], logits[:, :11])
        assert not torch.allclose(after[:, 11], logits[:, 11], atol=1e-3)
        cache = model.new_cache()
        near(torch.cat([model(row[:, a:b], cache=cache) for a, b in pairwise([0, 7, 8, 9, 20])], 1), logits)
        documents = torch.tensor([[0] * 9 + [1] * 11] * 2)
        near(model(row, documents=documents), torch.cat([model(row[:, :9]), model(row[:, 9:])], 1))
    found = model.train()(row, labels=row, **({"future": True} if changes["n_future_tokens"] > 1 else {}))
    loss = sum(found) if type(found) is tuple else found
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("documents", [None, torch.tensor([[0] * 9 + [1] * 11] * 2)], ids=["one", "two"])
def test_further_tokens_are_predicted_where_they_are_asked_for(documents):
    """By a block each behind the network's last, within a document; the next ones as without."""
    config = GPTConfig(**SHAPE, n_layers=2, n_future_tokens=3)
    model = drawn(GPT(config))
    row, labels = ids(2, 20), ids(2, 20, seed=1)
    with torch.no_grad():
        alone = model(row, documents=documents, labels=labels)
        plain = GPT(GPTConfig(**SHAPE, n_layers=2)).double().eval()
        kept = {name: tensor for name, tensor in model.state_dict().items() if "future" not in name}
        assert not any(name not in kept for name in plain.state_dict())
        plain.load_state_dict(kept)
        near(plain(row, documents=documents, labels=labels), alone)
        hidden = model.hidden(row, documents=documents)
        expected = 0.0
        for i, block in enumerate(model.future_blocks, 1):
            logits = model.final_norm(block(hidden, Mask(20, True, documents=documents))) @ model.head.weight.T
            for b, t in product(range(2), range(20 - i)):
                if documents is None or documents[b, t] == documents[b, t + i]:
                    expected += cross_entropy(logits[b, t], labels[b, t + i])
        next_tokens, further = model(row, documents=documents, labels=labels, future=True)
    near(next_tokens, alone)
    near(further, expected)


def test_rows_that_are_shorter_than_what_is_predicted():
    model = drawn(GPT(GPTConfig(**SHAPE, n_layers=2, n_future_tokens=8)))
    row, labels = ids(2, 3), ids(2, 3, seed=1)
    found, expected = model(row, labels=labels, future=True), model(row, labels=labels)
    near(found[0], expected)
    assert found[1].isfinite()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "padded before", "padded behind", "documents", "packed"])
def test_a_token_shift_adds_a_part_of_the_token_before_in_the_same_text(kind):
    shift, x = drawn(TokenShift(4, "attention")), torch.randn(2, 9, 4, dtype=torch.float64)
    real, document = torch.ones(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)
    packing = Packing(torch.tensor([[0, 3, 9], [0, 2, 7]]), 6) if kind == "packed" else None
    if kind.startswith("padded"):
        real = (torch.arange(9) < torch.tensor([[9], [5]])).long()
        real = real.flip(1) if kind == "padded before" else real
    elif packing is not None:
        document = packing.documents(9)
    elif kind == "documents":
        document = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 1, 1]])
    more = {"attention_mask": real} if "padded" in kind else {} if kind == "plain" else {"documents": document}
    expected = x.clone()
    for b, t in product(range(2), range(1, 9)):
        if real[b, t - 1] and document[b, t - 1] == document[b, t]:
            expected[b, t] += shift.scale.weight * x[b, t - 1]
    near(shift(x, Mask(9, True, packing=packing, **more)), expected)
    if packing is None and kind != "documents":
        cache = KVCache(9)
        masks = [
            Mask(end, True, start, **{name: mask[:, :end] for name, mask in more.items()}) for start, end in PIECES
        ]
        pieces = [shift(x[:, start:end], mask, cache) for (start, end), mask in zip(PIECES, masks, strict=True)]
        near(torch.cat(pieces, 1), expected)


@torch.no_grad()
def test_value_embeddings_are_added_to_the_values_of_the_first_and_the_last_blocks():
    model = drawn(GPT(GPTConfig(**SHAPE, n_layers=5, n_kv_heads=2, n_value_embeddings=2)))
    row, seen = ids(2, 20), []
    for block in model.blocks:
        block.attention.kernel = lambda q, k, v, *more: seen.append(v) or torch.zeros_like(q)
        block.attention.qkv.weight.zero_()
        block.attention.qkv.bias.zero_()
    model(row)
    first, second = (table(row).view(2, 20, 2, 8).transpose(1, 2) for table in model.value_embeddings)
    for found, wanted in zip(seen, [first, second, torch.zeros_like(first), first, second], strict=True):
        near(found, wanted)


@settings(max_examples=25, deadline=None)
@given(choices(**ENCODER_DECODER), choices(**ONE_STACK))
def test_any_choices_of_an_encoder_and_a_decoder_keep_what_they_are(changes, of_bert):
    """Padding changes nothing, and the decoder's cache gives what the whole target gives."""
    torch.manual_seed(0)
    real = (torch.arange(20) < torch.tensor([[20], [13]])).long()
    bert = drawn(BERT(BERTConfig(**SHAPE, n_layers=2, **of_bert)))
    network = drawn(Transformer(TransformerConfig(**SHAPE, n_encoder_layers=2, n_decoder_layers=2, **changes)))
    with torch.no_grad():
        near(bert(ids(2, 20), attention_mask=real)[0][1, :13], bert(ids(2, 20)[1:, :13])[0][0])
        memory = network.encode(ids(2, 20), real)
        near(memory[1, :13], network.encode(ids(2, 20)[1:, :13])[0])
        target, cache = ids(2, 9, seed=1), network.new_cache(20, 9)
        whole = network.decode(target, memory, real)
        pieces = [network.decode(target[:, a:b], memory, real, cache=cache) for a, b in pairwise([0, 4, 5, 9])]
        near(torch.cat(pieces, 1), whole)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_longformer_with_todays_choices_is_the_same_by_both_kernels(positions):
    config = {**SHAPE, "n_layers": 2, "window": 6, "norm_type": "rms", "n_kv_heads": 2, "qk_norm": True, "bias": False}
    networks = []
    for attention in ("dense", "sliding_window"):
        torch.manual_seed(0)
        shape = {**config, "attention": attention, "positions": positions, "norm": "pre", "gated": True}
        networks.append(drawn(Longformer(LongformerConfig(**shape, global_tokens=[0, 7]))))
    near(*(network(ids(2, 30)).masked_words for network in networks))


@torch.no_grad()
def test_each_block_attends_to_the_mean_of_its_values_and_the_first_ones():
    """Over the heads of a network without other terms: no positions, one token, so that its value is what is read."""
    model = drawn(GPT(GPTConfig(**SHAPE, n_layers=3, value_residual=True, parallel=True, bias=False)))
    row = ids(4, 1)
    x = model.embed(row)
    of_first = None
    for block in model.blocks:
        y = block.attention_norm(x)
        v = block.attention._heads(block.attention.qkv(y), 3)[2]
        of_first = v if of_first is None else of_first
        x = x + block.attention._merge((v + of_first) / 2) + block.feed_forward(y)
    near(model.head(model.final_norm(x)), model(row))


@torch.no_grad()
def test_blocks_with_outputs_of_zero_start_as_the_identity():
    config = {**SHAPE, "norm": "pre", "zero_init": True}
    gpt, bert = GPT(GPTConfig(**config, n_layers=2)).eval(), BERT(BERTConfig(**config, n_layers=2)).eval()
    row = ids(2, 9)
    assert torch.equal(gpt.hidden(row), gpt.final_norm(gpt.embed(row)))
    assert torch.equal(bert.hidden(row), bert.encoder.final_norm(bert.encoder.embed(row)))


def test_the_loss_without_logits_is_that_of_capped_ones():
    model = drawn(GPT(GPTConfig(**SHAPE, n_layers=1, logit_softcap=2.0)))
    row, weights = ids(2, 9), list(model.parameters())
    logits = model(row)
    uncapped = torch.nn.functional.linear(model.hidden(row), model.head.weight)
    near(logits, 2 * torch.tanh(uncapped / 2))
    losses = model(row, labels=row), cross_entropy(logits.flatten(0, 1), row.flatten(), reduction="sum")
    near(*losses)
    for pair in zip(*(torch.autograd.grad(loss, weights) for loss in losses), strict=True):
        near(*pair)


def sizes_after_training(width: int, optimizer: type, lr: float, **changes: Any) -> list[float]:
    """The mean size of what each block adds, and of the logits, after a few steps: a coordinate check of muP."""
    torch.manual_seed(0)
    shape = {**SHAPE, "d_model": width, "n_heads": width // 16}
    model = GPT(GPTConfig(**shape, n_layers=2, **changes))
    stepped = optimizer(parameter_groups(model), lr=lr)
    scale_rates(stepped)
    for step in range(6):
        row = ids(8, 33, seed=step)
        model(row[:, :-1], labels=row[:, 1:]).div(8 * 32).backward()
        stepped.step()
        stepped.zero_grad()
    found = []
    hooks = [
        b.feed_forward.register_forward_hook(lambda _, __, y: found.append(y.abs().mean().item())) for b in model.blocks
    ]
    with torch.no_grad():
        found.append(model(ids(8, 32)).abs().mean().item())
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "lr"), [(torch.optim.AdamW, 1e-2), (Muon, 2e-2)])
def test_activations_keep_their_size_over_widths(optimizer, lr):
    """By muP; with the rate and the weights of the narrowest, the wide ones' grow."""
    by_mup, as_they_are = (
        [sizes_after_training(width, optimizer, lr, mup_width=mup) for width in (64, 128, 256, 512)]
        for mup in (64, None)
    )
    growth = [
        [wide / narrow for narrow, wide in zip(sizes[0], sizes[-1], strict=True)] for sizes in (by_mup, as_they_are)
    ]
    assert all(1 / 2 < ratio < 2 for ratio in growth[0]), growth
    assert max(growth[1]) > 2.5, growth


def test_the_cache_holds_the_heads_of_keys_alone():
    sizes = []
    for n_kv_heads in (4, 1):
        model = GPT(GPTConfig(**SHAPE, n_layers=2, n_kv_heads=n_kv_heads)).eval()
        cache = model.new_cache()
        model(ids(2, 5), cache=cache)
        sizes.append(sum(entry.bytes for entry in cache))
    assert sizes[0] == 4 * sizes[1] == 2 * 2 * 2 * 40 * 32 * 4  # layers, keys and values, rows, tokens, width, bytes


@pytest.mark.parametrize(
    "network",
    [
        GPT(GPTConfig(**SHAPE, n_layers=1, norm_type="rms")),
        BERT(BERTConfig(**SHAPE, n_layers=1, norm="pre", norm_type="rms")),
        Longformer(LongformerConfig(**SHAPE, n_layers=1, norm="pre", norm_type="rms")),
        Transformer(TransformerConfig(**SHAPE, n_encoder_layers=1, n_decoder_layers=1, norm="pre", norm_type="rms")),
    ],
    ids=lambda network: type(network).__name__,
)
def test_all_norms_of_a_network_are_of_its_type(network):
    kinds = {type(module) for name, module in network.named_modules() if name.endswith("norm")}
    assert nn.RMSNorm in kinds
    assert nn.LayerNorm not in kinds


def test_grouped_queries_read_the_key_of_their_group():
    """As a network with a head of keys for each of queries, in which those of a group are copies."""
    grouped_, full = (GPT(GPTConfig(**SHAPE, n_layers=1, n_kv_heads=n)).double().eval() for n in (2, None))
    with torch.no_grad():
        weights = drawn(grouped_).state_dict()
        for part in ("weight", "bias"):
            rows = weights[f"blocks.0.attention.qkv.{part}"].unflatten(0, (2, 4, 8))  # groups, their q q k v, head_dim
            heads = [[rows[g, i], rows[g, 2], rows[g, 3]] for g in range(2) for i in range(2)]
            weights[f"blocks.0.attention.qkv.{part}"] = torch.cat([row for head in heads for row in head])
        full.load_state_dict(weights)
        near(grouped_(ids(2, 20)), full(ids(2, 20)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_kv_heads": 3}, "n_heads 4 is not divisible by n_kv_heads 3"),
        ({"n_kv_heads": 0}, "n_kv_heads is 0: it must be at least 1"),
        ({"norm_type": "batch"}, "norm_type is 'batch': choose 'layer' or 'rms' or 'rms_plain'"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0: it must be above 0"),
        ({"norm": "post", "first_norm": False}, "first_norm is false: it leaves out a norm that only norm 'pre' has"),
        ({"rope_base": 5e5}, "rope_base is 500000.0: it goes with positions 'rotary' alone"),
        ({"positions": "rotary", "rope_fraction": 1.5}, "rope_fraction is 1.5: it must be above 0 and at most 1"),
        (
            {"positions": "rotary", "rope_fraction": 0.4},
            "positions 'rotary' turns pairs: what is turned of a head is 3",
        ),
        ({"positions": "rotary", "head_dim": 7}, "positions 'rotary' turns pairs: what is turned of a head is 7, odd"),
        (
            {"positions": "rotary", "rope_factor": 2.0},
            "rope_factor is 2.0: it must be from 1 to 1,000,000, and above 1",
        ),
        ({"positions": "rotary", "rope_scaling": "dynamic"}, "rope_scaling is 'dynamic': choose one of linear, ntk"),
        ({"positions": "rotary", "rope_scaling": "yarn"}, "rope_scaling 'yarn' needs rope_original_len"),
        ({"window_pattern": "LG"}, "window_pattern is 'LG': it must be of L and G, as LLG, and window one number"),
        ({"window_pattern": "LX", "window": 4}, "window_pattern is 'LX'"),
        (
            {"norm": "post", "parallel": True},
            "parallel is true: its sub-layers read one norm, which goes with norm 'pre'",
        ),
        ({"attention": "flash", "attention_softcap": 50.0}, "attention_softcap is 50.0: attention 'flash' has none"),
        ({"attention_softcap": 0.0}, "attention_softcap is 0.0: it must be above 0"),
        ({"logit_softcap": -1.0}, "logit_softcap is -1.0: it must be above 0"),
        ({"init": "xavier"}, "init is 'xavier': choose 'normal' or 'width'"),
        ({"mup_width": 0}, "mup_width is 0: it must be at least 1"),
        ({"norm_eps": math.nan}, "norm_eps is nan: it must be above 0 and finite"),
        ({"attention_softcap": math.inf}, "attention_softcap is inf: it must be above 0 and finite"),
        ({"positions": "rotary", "rope_base": math.nan}, "rope_base is nan: it must be above 1 and finite"),
        ({"positions": "rotary", "rope_base": 1.0}, "rope_base is 1.0: it must be above 1"),
        ({"positions": "rotary", "rope_scaling": "ntk", "rope_factor": 1e300}, "rope_factor is 1e[+]300: it must be"),
        ({"positions": "rotary", "rope_scaling": "linear", "rope_factor": math.nan}, "rope_factor is nan: it must be"),
        ({"window": 10**23}, "window is 1000.*: it must be at least 0 and below 2"),
        ({"n_layers": 2, "window": [1, None]}, "window is .1, None.: it must be of whole numbers"),
        ({"d_ff": 2**31}, "d_ff is 2147483648: it must be at least 1 and below 2"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**SHAPE, **changes)


@pytest.mark.parametrize("name", ["parallel", "value_residual"])
def test_blocks_with_cross_attention_have_one_form(name):
    with pytest.raises(ValueError, match=f"{name} is true: blocks with cross-attention have none"):
        TransformerConfig(norm="pre", **{name: True})


def test_each_side_has_its_own_positions_where_they_are_learned_alone():
    with pytest.raises(ValueError, match="shared_positions is false: it goes with positions 'learned' alone"):
        TransformerConfig(shared_positions=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "alibi"}, "positions is 'alibi': a Longformer's attention, which has global tokens"),
        ({"value_residual": True}, "value_residual is true: a Longformer's global tokens have values of their own"),
    ],
)
def test_what_global_tokens_have_not(changes, message):
    with pytest.raises(ValueError, match=message):
        LongformerConfig(**changes)
