"""Every implementation of attention on CUDA against a softmax over the visible pairs: outputs and gradients."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from src.errors import InputError
from src.nn import KERNELS, AttentionSpan, Mask, Packing, alibi_slopes, cpu
from tests.conftest import LACKS
from tests.nn.test_kernels import expected

pytestmark = pytest.mark.gpu

BATCH, HEADS, LENGTH, DIM = 2, 4, 200, 32
PADDING = (torch.arange(LENGTH) < torch.tensor([[LENGTH], [150]])).long()
STARTS = torch.tensor([[0, 60, LENGTH], [0, 130, 150]])
PACKED = {"documents": Packing(STARTS, 140).documents(LENGTH), "packing": Packing(STARTS, 140)}
DOCUMENTS = (torch.arange(LENGTH) >= torch.tensor([[60], [130]])).long()
SLOPES, DILATION = alibi_slopes(HEADS), (1, 1, 2, 3)
# name -> the mask, and what the heads see through it
CASES = {
    "all": (Mask(LENGTH), AttentionSpan()),
    "causal": (Mask(LENGTH, True), AttentionSpan()),
    "padding": (Mask(LENGTH, attention_mask=PADDING), AttentionSpan()),
    "causal, padding": (Mask(LENGTH, True, attention_mask=PADDING), AttentionSpan()),
    "causal, documents": (Mask(LENGTH, True, documents=DOCUMENTS), AttentionSpan()),
    "causal, alibi": (Mask(LENGTH, True), AttentionSpan(alibi_slopes=SLOPES)),
    "window": (Mask(LENGTH), AttentionSpan(20)),
    "causal, window": (Mask(LENGTH, True), AttentionSpan(20)),
    "window, padding": (Mask(LENGTH, attention_mask=PADDING), AttentionSpan(20)),
    "causal, window, alibi": (Mask(LENGTH, True), AttentionSpan(20, alibi_slopes=SLOPES)),
    "window, dilation": (Mask(LENGTH), AttentionSpan(20, DILATION)),
    "documents end to end": (Mask(LENGTH, **PACKED), AttentionSpan()),
    "causal, documents end to end": (Mask(LENGTH, True, **PACKED), AttentionSpan()),
    "documents end to end, alibi": (Mask(LENGTH, **PACKED), AttentionSpan(alibi_slopes=SLOPES)),
    "window, documents end to end": (Mask(LENGTH, **PACKED), AttentionSpan(20)),
    "causal, window, documents end to end": (Mask(LENGTH, True, **PACKED), AttentionSpan(20)),
    "causal, window, documents, dilation": (Mask(LENGTH, True, documents=DOCUMENTS), AttentionSpan(20, DILATION)),
}
HALF = (torch.bfloat16, torch.float16)
# what a kernel takes; the rest it refuses
TAKEN = {
    "dense": dict.fromkeys(CASES, (torch.float32, *HALF)),
    "sliding_window": dict.fromkeys((name for name in CASES if "window" in name), (torch.float32, *HALF)),
    "flex": {
        **dict.fromkeys(CASES, (torch.bfloat16,)),  # each case is compiled for each type: some seconds
        "causal": (torch.float32, *HALF),
    },
    "flash": {"all": HALF, "causal": HALF},
    "flash_attn": {
        name: HALF for name in CASES if not any(word in name for word in ("padding", "documents", "dilation"))
    },
}
RUNS = [(kernel, name, dtype) for kernel, names in TAKEN.items() for name, dtypes in names.items() for dtype in dtypes]
# of the norm of what is compared: a few roundings of the type
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def on_cuda(mask: Mask) -> Mask:
    attention_mask, documents = (
        None if tensor is None else tensor.cuda() for tensor in (mask.attention_mask, mask.documents)
    )
    packing = None if mask.packing is None else replace(mask.packing, starts=mask.packing.starts.cuda())
    return Mask(mask.length, mask.causal, attention_mask=attention_mask, documents=documents, packing=packing)


def queries_keys_values(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(BATCH, HEADS, LENGTH, DIM, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize(("kernel", "case", "dtype"), RUNS, ids=lambda value: str(value).removeprefix("torch."))
def test_it_is_the_masked_softmax(kernel, case, dtype):
    if kernel == "flash_attn" and find_spec("flash_attn") is None:
        pytest.skip(f"{LACKS} flash-attn")
    mask, span = CASES[case]
    exact = queries_keys_values(dtype)
    inputs = [x.detach().cuda().requires_grad_() for x in exact]
    weight = torch.randn(BATCH, HEADS, LENGTH, DIM, generator=torch.Generator().manual_seed(1))
    if mask.attention_mask is not None:
        weight = weight * PADDING[:, None, :, None]  # nothing reads the output at padding
    found = KERNELS[kernel](*inputs, on_cuda(mask), span, 0.0)
    assert found.dtype == dtype
    wanted = expected(*exact, mask, span)
    gradients = torch.autograd.grad(found, inputs, weight.cuda().to(dtype))
    others = torch.autograd.grad(wanted, exact, weight.double())
    for name, a, b in zip(("output", "q", "k", "v"), (found, *gradients), (wanted, *others), strict=True):
        a, b = a.detach().cpu().double(), b.detach().double()
        if name == "output":
            a, b = a * (weight != 0), b * (weight != 0)
        assert (a - b).norm() < TOLERANCE[dtype] * b.norm(), name


@pytest.mark.parametrize(("case", "dtype"), [("causal", torch.float32), ("padding", torch.bfloat16)])
def test_flash_is_refused_where_torch_has_none(case, dtype):
    inputs = [x.cuda() for x in queries_keys_values(dtype)]
    with pytest.raises(InputError, match=r"no flash kernel for \w+ on cuda.* choose 'dense'") as refused:
        KERNELS["flash"](*inputs, on_cuda(CASES[case][0]), AttentionSpan(), 0.0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("case", "dtype", "reason"),
    [("padding", torch.bfloat16, "no padding"), ("causal", torch.float32, "half precision only")],
)
def test_flash_attn_is_refused_where_it_cannot_be(case, dtype, reason):
    inputs = [x.cuda() for x in queries_keys_values(dtype)]
    reason = reason if find_spec("flash_attn") else "needs the package"
    with pytest.raises(InputError, match=f"'flash_attn'.*{reason}"):
        KERNELS["flash_attn"](*inputs, on_cuda(CASES[case][0]), AttentionSpan(), 0.0)


@pytest.mark.parametrize("kernel", ["dense", "flash", "sliding_window"])
def test_dropout_drops_weights_and_keeps_their_mean(kernel):
    q, k = torch.zeros(2, 2, HEADS, LENGTH, DIM, device="cuda", dtype=torch.bfloat16)
    v, span = torch.ones_like(q), AttentionSpan(20 if kernel == "sliding_window" else None)
    torch.manual_seed(0)
    y = torch.stack([KERNELS[kernel](q, k, v, Mask(LENGTH, True), span, 0.5) for _ in range(20)]).float()
    assert y[:, :, :, 100:].mean().item() == pytest.approx(1, abs=0.02)
    assert y[:, :, :, 100:].std().item() > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_ways_of_a_cpu_are_not_taken(dtype, monkeypatch):
    def refuse(*_):
        raise AssertionError("a way of the CPU on CUDA")

    for name in ("matmul_attention", "_dropout_scale"):
        monkeypatch.setattr(cpu, name, refuse)
    inputs = [x.detach().cuda().requires_grad_() for x in queries_keys_values(dtype)]
    y = cpu.dropout(cpu.attend(*inputs, dropout_p=0.1, is_causal=True), 0.1)
    y.sum().backward()
    assert all(x.grad.isfinite().all() for x in inputs)
