"""Orthogonalised matrices for Muon: one at a time, or many that lie in shards on several processes."""

import math
from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring a matrix's singular values near 1 (0.6 to 1.2) by Newton-Schulz iterations (Jordan et al. 2024).

    In bfloat16 on a GPU; in float32 on a CPU, most of which only emulate bfloat16 (40 times slower, measured on Zen 3).

    Args:
        matrix: (rows, columns).
        steps: iterations of the quintic polynomial.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.to(_precision(matrix))
    wide = x if x.size(0) <= x.size(1) else x.T  # the smaller Gram matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if x.size(0) <= x.size(1) else wide.T


def _precision(matrix: Tensor) -> torch.dtype:
    return torch.bfloat16 if matrix.is_cuda else torch.float32


def orthogonalize_sharded(matrices: list[DTensor]) -> list[Tensor]:
    """Orthogonalise matrices that several processes have shards of; each of them must call this with the same ones.

    Newton-Schulz on shards would communicate in every product. Instead each process is given whole matrices in turn,
    orthogonalises those, and sends everyone its shards of them: two exchanges for all matrices of a mesh together.
    """
    found: list[Any] = list(matrices)
    by_mesh: dict[DeviceMesh, list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        if matrix.device_mesh.ndim == 1 and isinstance(matrix.placements[0], Shard):
            by_mesh[matrix.device_mesh].append(i)
        else:  # sharded over two dimensions, or whole on each process
            found[i] = _orthogonalize_everywhere(matrix)
    for mesh, numbers in by_mesh.items():
        for i, matrix in zip(numbers, _orthogonalize_in_turn([matrices[i] for i in numbers], mesh), strict=True):
            found[i] = matrix
    return found


def _orthogonalize_everywhere(matrix: DTensor) -> DTensor:
    mesh = matrix.device_mesh
    whole = orthogonalize(matrix.full_tensor())
    replicated = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=matrix.placements)


def _orthogonalize_in_turn(matrices: list[Any], mesh: DeviceMesh) -> list[DTensor]:
    """Orthogonalise matrices that are sharded over one mesh, each along one of its dimensions."""
    rank, ranks, group = mesh.get_local_rank(), range(mesh.size()), mesh.get_group()
    dims = [matrix.placements[0].dim for matrix in matrices]
    shapes = [_shard_shapes(matrix.shape, dim, len(ranks)) for matrix, dim in zip(matrices, dims, strict=True)]
    by_size = sorted(range(len(matrices)), key=lambda i: -matrices[i].numel())  # all get about as much to compute
    owned = [by_size[owner :: len(ranks)] for owner in ranks]

    # in one precision, in which the result comes back too: what is exchanged lies in one buffer
    shards = [matrix.to_local().to(_precision(matrix)) for matrix in matrices]
    buffer = torch.empty(0, dtype=shards[0].dtype, device=shards[0].device)
    sent = [[shards[i] for i in of] for of in owned]
    received = _exchange(sent, [[shapes[i][r] for i in owned[rank]] for r in ranks], buffer, group)
    sent = [[] for _ in ranks]
    for i, *parts in zip(owned[rank], *received, strict=True):
        whole = orthogonalize(torch.cat(parts, dims[i]))
        for to, part in zip(sent, whole.split([shape[dims[i]] for shape in shapes[i]], dims[i]), strict=True):
            to.append(part)
    received = _exchange(sent, [[shapes[i][rank] for i in of] for of in owned], buffer, group)

    mine = {i: shard for of, from_ in zip(owned, received, strict=True) for i, shard in zip(of, from_, strict=True)}
    return [
        DTensor.from_local(mine[i], mesh, m.placements, run_check=False, shape=m.shape, stride=m.stride())
        for i, m in enumerate(matrices)
    ]


def _shard_shapes(shape: torch.Size, dim: int, ranks: int) -> list[list[int]]:
    """Give the shape of each rank's shard, as :class:`Shard` and ``torch.chunk`` cut: the last ones may be empty."""
    most = -(-shape[dim] // ranks)
    sizes = [min(most, max(0, shape[dim] - rank * most)) for rank in range(ranks)]
    return [[*shape[:dim], size, *shape[dim + 1 :]] for size in sizes]


def _exchange(
    sent: list[list[Tensor]], shapes: list[list[list[int]]], buffer: Tensor, group: Any
) -> list[list[Tensor]]:
    """Send each rank some tensors, and receive from each those of some shapes: by one all-to-all.

    Args:
        sent: to each rank.
        shapes: of what comes from each rank.
        buffer: empty, of their type and device.
        group: of the ranks.
    """
    flat = torch.cat([buffer, *(tensor.reshape(-1) for to in sent for tensor in to)])
    sizes = [[math.prod(shape) for shape in of] for of in shapes]
    counts = [sum(of) for of in sizes]
    received = buffer.new_empty(sum(counts))
    dist.all_to_all_single(received, flat, counts, [sum(tensor.numel() for tensor in to) for to in sent], group=group)
    return [
        [piece.view(shape) for piece, shape in zip(part.split(size), of, strict=True)]
        for part, size, of in zip(received.split(counts), sizes, shapes, strict=True)
    ]
