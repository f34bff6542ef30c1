"""How a network is cut into pipeline stages: its layers in the order of the forward pass, with what each one costs.

A layer calls the network's own modules. Every process of a pipeline has the whole batch, so that ids and masks are
never sent: only the state travels, which is the vectors of the decoder and the encoder, or of the one of them there is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from itertools import pairwise

import torch
from torch import Tensor, nn

from src.models import BERT, GPT, BERTClassifier, BERTEncoder, Longformer, Transformer
from src.models.bert import BERTOutput, at
from src.nn import Mask, padding_mask

Inputs = dict[str, Tensor]  # the network's arguments
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Layer:
    """A piece of a network that is not cut.

    Args:
        modules: names of the submodules that it calls.
        cost: of a token in it, in parameters that multiply it.
        run: makes the next state, and at the last layer what the network gives.
        state: the ids, by their names among the inputs, whose (rows, length) the tensors of the next state have.
    """

    modules: tuple[str, ...]
    cost: float
    run: Callable[[State, Inputs], State]
    state: tuple[str, ...]


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def partition(costs: list[float], n: int) -> list[range]:
    """Cut a row of layers into ``n`` runs, none empty, so that the dearest run is as cheap as can be."""
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    # best[k][j]: the dearest run, and where the last one starts, of the first j layers in k + 1 runs
    best = [[(total[j], 0) for j in range(len(costs) + 1)]]
    for k in range(1, n):
        row = [(float("inf"), 0)] * (len(costs) + 1)
        for j in range(k + 1, len(costs) + 1):
            row[j] = min((max(best[-1][i][0], total[j] - total[i]), i) for i in range(k, j))
        best.append(row)
    cuts = [len(costs)]
    for row in reversed(best):
        cuts.append(row[cuts[-1]][1])
    return [range(start, end) for start, end in pairwise(reversed(cuts))]


@singledispatch
def layers(model: nn.Module) -> list[Layer]:
    """The layers of a network, one after the other."""
    raise NotImplementedError(f"a {type(model).__name__} cannot be cut into stages")


@layers.register
def _(model: GPT) -> list[Layer]:
    def embed(_: State, inputs: Inputs) -> State:
        return (model.embed(inputs["input_ids"], documents=inputs.get("documents")),)

    def run(block: nn.Module) -> Callable[[State, Inputs], State]:
        def through(state: State, inputs: Inputs) -> State:
            return (block(state[0], model.mask(inputs["input_ids"], documents=inputs.get("documents"))),)

        return through

    def head(state: State, _: Inputs) -> State:
        return (model.head(model.final_norm(state[0])),)

    ids = ("input_ids",)
    table = ("position_embedding",) if model.position_embedding is not None else ()
    return [
        Layer(("token_embedding", *table), 0, embed, ids),
        *(Layer((f"blocks.{i}",), _parameters(block), run(block), ids) for i, block in enumerate(model.blocks)),
        Layer(("final_norm", "head"), _parameters(model.head), head, ()),
    ]


def encoder_layers(encoder: BERTEncoder, texts: tuple[str, ...] = ("",)) -> list[Layer]:
    """The layers of an encoder that reads one text or several, told apart by what their inputs' names begin with."""

    def embed(_: State, inputs: Inputs) -> State:
        return tuple(encoder.embed(inputs[f"{text}input_ids"], inputs.get(f"{text}token_type_ids")) for text in texts)

    def run(block: nn.Module) -> Callable[[State, Inputs], State]:
        return lambda state, inputs: tuple(
            block(x, encoder.mask(inputs[f"{text}input_ids"], inputs[f"{text}attention_mask"]))
            for x, text in zip(state, texts, strict=True)
        )

    names = ("token_embedding", "segment_embedding", "position_embedding", "embedding_norm")
    ids = tuple(f"{text}input_ids" for text in texts)
    return [
        Layer(tuple(f"encoder.{name}" for name in names), 0, embed, ids),
        *(
            Layer((f"encoder.blocks.{i}",), _parameters(block), run(block), ids)
            for i, block in enumerate(encoder.blocks)
        ),
    ]


@layers.register
def _(model: BERT) -> list[Layer]:
    def heads(state: State, inputs: Inputs) -> State:
        hidden = model.encoder.final_norm(state[0])
        pairs = model.next_sentence(model.encoder.pool(hidden))
        return model.masked_words(at(hidden, inputs["masked_positions"])), pairs

    names = ("encoder.final_norm", "encoder.pooler", "masked_words", "next_sentence")
    # one token in six or seven is masked, and the others see nothing of this layer
    return [*encoder_layers(model.encoder), Layer(names, 0.15 * _parameters(model.masked_words), heads, ())]


@layers.register
def _(model: Longformer) -> list[Layer]:
    def head(state: State, inputs: Inputs) -> State:
        return (model.masked_words(at(model.encoder.final_norm(state[0]), inputs["masked_positions"])),)

    names = ("encoder.final_norm", "masked_words")
    return [*encoder_layers(model.encoder), Layer(names, 0.15 * _parameters(model.masked_words), head, ())]


@layers.register
def _(model: BERTClassifier) -> list[Layer]:
    def head(state: State, _: Inputs) -> State:
        pooled = model.encoder.pool(model.encoder.final_norm(state[0]))
        return (model.classifier(model.dropout(pooled)),)

    return [*encoder_layers(model.encoder), Layer(("encoder.final_norm", "encoder.pooler", "classifier"), 0, head, ())]


@layers.register
def _(model: Transformer) -> list[Layer]:
    def embed_source(_: State, inputs: Inputs) -> State:
        return (model._embed(model.source_embedding, inputs["input_ids"]),)

    def encode(block: nn.Module) -> Callable[[State, Inputs], State]:
        def run(state: State, inputs: Inputs) -> State:
            mask = Mask(state[0].shape[1], attention_mask=inputs["attention_mask"])
            return (block(state[0], mask),)

        return run

    def embed_target(state: State, inputs: Inputs) -> State:
        return model._embed(model.target_embedding, inputs["decoder_input_ids"]), model.encoder_norm(state[0])

    def decode(block: nn.Module) -> Callable[[State, Inputs], State]:
        def run(state: State, inputs: Inputs) -> State:
            x, memory = state
            memory_mask = padding_mask(inputs["attention_mask"])
            return block(x, Mask(x.shape[1], causal=True), memory=memory, memory_mask=memory_mask), memory

        return run

    def head(state: State, _: Inputs) -> State:
        return (model.head(model.decoder_norm(state[0])),)

    source, both = ("input_ids",), ("decoder_input_ids", "input_ids")
    encoder, decoder = enumerate(model.encoder), enumerate(model.decoder)
    return [
        Layer(("source_embedding",), 0, embed_source, source),
        *(Layer((f"encoder.{i}",), _parameters(block), encode(block), source) for i, block in encoder),
        Layer(("encoder_norm", "target_embedding"), 0, embed_target, both),
        *(Layer((f"decoder.{i}",), _parameters(block), decode(block), both) for i, block in decoder),
        Layer(("decoder_norm", "head"), _parameters(model.head), head, ()),
    ]


def output_of(model: nn.Module, state: State) -> object:
    """What the network's ``forward`` gives, from the state after its last layer."""
    if len(state) > 1 and not isinstance(model, BERT):
        return state
    if isinstance(model, Longformer):
        return BERTOutput(state[0], None)
    return BERTOutput(*state) if isinstance(model, BERT) else state[0]


def keep(model: nn.Module, kept: list[Layer]) -> None:
    """Take out of a network the modules that some of its layers do not call, leaving all names as they are.

    A module whose parameters are all shared with one that stays, as a tied embedding, costs nothing and stays.
    """
    names = {name for layer in kept for name in layer.modules}
    held = {id(p) for name in names for p in model.get_submodule(name).parameters()}
    for layer in layers(model):
        for name in layer.modules:
            module = model.get_submodule(name)
            if name not in names and not {id(p) for p in module.parameters()} <= held:
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, nn.Identity())


def rows_of(inputs: Inputs) -> int:
    """How many rows a batch has."""
    return len(inputs["input_ids"])


def empty_state(layer: Layer, inputs: Inputs, d_model: int, dtype: torch.dtype, device: torch.device | str) -> State:
    """Room for the state after a layer, to be received into."""
    return tuple(torch.empty(*inputs[ids].shape, d_model, dtype=dtype, device=device) for ids in layer.state)
