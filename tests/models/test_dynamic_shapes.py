"""`torch.export`, which ONNX and others start from: one graph for batches of all sizes and lengths."""

import pytest
import torch
from torch.export import Dim

from tests.random_networks import checkpoint_of

ROWS, LENGTH, TARGET = Dim("rows"), Dim("length", max=24), Dim("target", max=24)


@pytest.mark.parametrize("name", ["gpt", "bert", "transformer"])
def test_a_graph_takes_batches_of_other_shapes(name):
    network, _ = checkpoint_of(name)

    def batch(rows, length, target):
        ids, mask = torch.randint(5, 80, (rows, length)), (torch.arange(length) < length // 2 + 1).long()
        second = torch.randint(5, 80, (rows, target)) if name == "transformer" else torch.zeros_like(ids)
        return (ids,) if name == "gpt" else (ids, second, mask.expand(rows, -1))

    other = TARGET if name == "transformer" else LENGTH
    shapes = ({0: ROWS, 1: LENGTH}, {0: ROWS, 1: other}, {0: ROWS, 1: LENGTH})
    given = batch(2, 9, 7)
    graph = torch.export.export(network, given, dynamic_shapes=(shapes[: len(given)],)).module()
    for shape in ((1, 4, 3), (3, 24, 20)):
        inputs = batch(*shape)
        for found, expected in zip(graph(*inputs), network(*inputs), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
