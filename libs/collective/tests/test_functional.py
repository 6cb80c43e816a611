"""Functional collectives and those with gradients, and DTensor's ways to redistribute."""

import itertools

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.parametrize("topology", ["2x2"])


def check_functional(rank, size):
    import torch.distributed._functional_collectives as funcol

    group = dist.group.WORLD
    mine = torch.arange(6.0).view(3, 2) + 10 * rank
    every = [torch.arange(6.0).view(3, 2) + 10 * other for other in range(size)]
    stacked = torch.stack(every)
    for op, expected in (
        ("sum", stacked.sum(0)),
        ("avg", stacked.mean(0)),
        ("max", stacked.amax(0)),
        ("min", stacked.amin(0)),
        ("product", stacked.prod(0)),
    ):
        assert torch.allclose(funcol.all_reduce(mine, op, group) + 0, expected), op
    assert torch.equal(funcol.broadcast(mine, 1, group) + 0, every[1])
    for dim in (0, 1):
        assert torch.equal(funcol.all_gather_tensor(mine, dim, group) + 0, torch.cat(every, dim))
    wide = torch.arange(2.0 * 3 * size).view(2, 3 * size) * (rank + 1)
    part = funcol.reduce_scatter_tensor(wide, "sum", 1, group) + 0
    factor = size * (size + 1) / 2
    assert torch.equal(part, torch.arange(6.0 * size).view(2, 3 * size)[:, 3 * rank : 3 * rank + 3] * factor)
    sums = funcol.all_reduce_coalesced([mine, mine[:1]], "sum", group)
    assert torch.equal(sums[1] + 0, stacked.sum(0)[:1])
    gathered = funcol.all_gather_into_tensor_coalesced([mine, mine[:, :1].contiguous()], group)
    assert torch.equal(gathered[1] + 0, torch.cat([t[:, :1] for t in every]))
    scattered = funcol.reduce_scatter_tensor_coalesced(
        [torch.ones(size, 2), torch.ones(2 * size)], "sum", [0, 0], group
    )
    assert all(bool((t + 0 == size).all()) for t in scattered)
    # Rank r sends r + 1 rows to every rank.
    sent = torch.full(((rank + 1) * size, 2), float(rank))
    got = funcol.all_to_all_single(sent, [other + 1 for other in range(size)], [rank + 1] * size, group) + 0
    assert torch.equal(got, torch.cat([torch.full((other + 1, 2), float(other)) for other in range(size)]))
    # torch counts elements here, so the tensor has one dimension.
    turned = funcol.permute_tensor(mine.flatten(), [(index + 1) % size for index in range(size)], group) + 0
    assert torch.equal(turned, every[(rank - 1) % size].flatten())


def test_functional_collectives(world):
    world.run(check_functional)


def check_gradients(rank, size):
    import torch.distributed._functional_collectives as funcol
    from torch.distributed.nn import functional as nn_functional

    group = dist.group.WORLD
    weight = torch.arange(1.0, 2 * size + 1).view(size, 2)

    x = torch.full((1, 2), float(rank), requires_grad=True)
    (funcol.all_gather_tensor_autograd(x, 0, group) * weight).sum().backward()
    assert torch.equal(x.grad, size * weight[rank : rank + 1])

    x = torch.ones(size, 2, requires_grad=True)
    (funcol.reduce_scatter_tensor_autograd(x, "sum", 0, group) * (rank + 1)).sum().backward()
    assert torch.equal(x.grad, torch.arange(1.0, size + 1).view(size, 1).expand(size, 2))

    x = torch.ones(size, 2, requires_grad=True)
    (funcol.all_to_all_single_autograd(x, None, None, group) * (rank + 1)).sum().backward()
    assert torch.equal(x.grad, torch.arange(1.0, size + 1).view(size, 1).expand(size, 2))

    x = torch.ones(3, requires_grad=True)
    (nn_functional.all_reduce(x) * (rank + 1)).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), size * (size + 1) / 2))

    x = torch.full((3,), float(rank), requires_grad=True)
    parts = nn_functional.all_gather(x)
    assert [part[0].item() for part in parts] == list(range(size))
    sum(part.sum() * (index + 1) for index, part in enumerate(parts)).backward()
    assert torch.equal(x.grad, torch.full((3,), float(size * (rank + 1))))


def test_collectives_with_gradients(world):
    world.run(check_gradients)


def check_redistribution(rank, size):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2, size // 2))
    torch.manual_seed(3)
    whole = torch.randn(7, 5)  # does not divide by the mesh
    placements = [list(pair) for pair in itertools.product([Replicate(), Shard(0), Shard(1)], repeat=2)]
    for start in placements:
        tensor = distribute_tensor(whole, mesh, start)
        for target in placements:
            assert torch.equal(tensor.redistribute(mesh, target).full_tensor(), whole), (start, target)
    for op, expected in (("sum", whole * size), ("avg", whole), ("max", whole)):
        for target in placements:
            partial = DTensor.from_local(whole.clone(), mesh, [Partial(op), Partial(op)])
            assert torch.allclose(partial.redistribute(mesh, target).full_tensor(), expected, atol=1e-6), (op, target)


def test_every_redistribution_of_dtensor(world):
    world.run(check_redistribution)


def check_loss_parallel(rank, size):
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        SequenceParallel,
        loss_parallel,
        parallelize_module,
    )

    torch.manual_seed(4)
    tokens = torch.randint(16, (2, 8))
    model = nn.ModuleDict(
        {"embed": nn.Embedding(16, 12), "norm": nn.LayerNorm(12), "head": nn.Linear(12, 16, bias=False)}
    )

    def loss_of():
        logits = model["head"](model["norm"](model["embed"](tokens)))
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())

    expected = loss_of()
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    mesh = init_device_mesh("cpu", (size,))
    parallelize_module(
        model,
        mesh,
        {
            "embed": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
            "norm": SequenceParallel(),
            "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False),
        },
    )
    with loss_parallel():
        loss = loss_of()
        loss.backward()
    assert torch.allclose(loss.full_tensor(), expected, atol=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad.full_tensor(), gradients[name], atol=1e-5), name


def test_sequence_and_loss_parallelism(world):
    world.run(check_loss_parallel)
