"""Groups as Megatron-style trainers make them: many, overlapping, each with a Gloo companion for objects."""

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.parametrize("topology", ["2x2"])


def make_groups(rank, size, tensor=2):
    """The groups of Megatron's initialize_model_parallel for tensor × pipeline ranks; all ranks make all groups."""
    groups = {}

    def add(name, members, backend="smddp"):
        group = dist.new_group(members, backend=backend, pg_options=None)
        if rank in members:
            groups[name] = group

    for start in range(0, size, tensor):
        add("tensor", list(range(start, start + tensor)))
    for offset in range(tensor):
        stage_ranks = list(range(offset, size, tensor))
        add("pipeline", stage_ranks)
        add("embedding", [stage_ranks[0], stage_ranks[-1]])
        add("position_embedding", [stage_ranks[0]])
        add("data", stage_ranks)
        add("data_gloo", stage_ranks, backend="gloo")
    add("model", list(range(size)))
    return groups


def check_megatron(rank, size):
    groups = make_groups(rank, size)
    tensor, pipeline, data = groups["tensor"], groups["pipeline"], groups["data"]

    # Tensor parallelism: a column split, then a row split that sums.
    torch.manual_seed(1)
    x, a, b = torch.randn(3, 8), torch.randn(8, 8), torch.randn(8, 8)
    index = dist.get_rank(tensor)
    partial = (x @ a[:, index * 4 : index * 4 + 4]) @ b[index * 4 : index * 4 + 4]
    dist.all_reduce(partial, group=tensor)
    assert torch.allclose(partial, x @ a @ b, atol=1e-4)

    # Sequence parallelism.
    whole = torch.empty(6, 2)
    dist.all_gather_into_tensor(whole, torch.full((3, 2), float(index)), group=tensor)
    assert whole[:3].eq(0).all() and whole[3:].eq(1).all()
    part = torch.empty(3, 2)
    dist.reduce_scatter_tensor(part, torch.ones(6, 2), group=tensor)
    assert part.eq(2).all()

    # Pipeline: both directions at once between neighbours, as one batch.
    stage, stages = dist.get_rank(pipeline), dist.get_world_size(pipeline)
    received = torch.zeros(2, 4)
    operations = []
    if stage + 1 < stages:
        peer = dist.get_global_rank(pipeline, stage + 1)
        operations += [dist.P2POp(dist.isend, torch.full((4,), float(rank)), peer, pipeline)]
        operations += [dist.P2POp(dist.irecv, received[1], peer, pipeline)]
    if stage > 0:
        peer = dist.get_global_rank(pipeline, stage - 1)
        operations += [dist.P2POp(dist.isend, torch.full((4,), float(rank)), peer, pipeline)]
        operations += [dist.P2POp(dist.irecv, received[0], peer, pipeline)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    assert stage == 0 or received[0].eq(rank - 2).all()
    assert stage + 1 == stages or received[1].eq(rank + 2).all()

    # Tied embeddings, gradients, and objects over the Gloo companion.
    gradient = torch.full((5,), float(rank))
    dist.all_reduce(gradient, group=groups["embedding"])
    members = dist.get_process_group_ranks(groups["embedding"])
    assert gradient.eq(sum(members)).all()
    if "position_embedding" in groups:
        dist.all_reduce(gradient, group=groups["position_embedding"])
        assert gradient.eq(sum(members)).all()
    flat = torch.full((7,), float(rank))
    dist.all_reduce(flat, op=dist.ReduceOp.AVG, group=data)
    assert flat.eq(sum(dist.get_process_group_ranks(data)) / dist.get_world_size(data)).all()
    objects = [None] * dist.get_world_size(data)
    dist.all_gather_object(objects, {"rank": rank}, group=groups["data_gloo"])
    assert [o["rank"] for o in objects] == dist.get_process_group_ranks(data)
    box = [{"iteration": 7} if dist.get_rank(data) == 0 else None]
    dist.broadcast_object_list(box, src=dist.get_process_group_ranks(data)[0], group=groups["data_gloo"])
    assert box == [{"iteration": 7}]

    # Gradient norms are maxima and sums over all model ranks.
    norm = torch.tensor([float(rank)])
    dist.all_reduce(norm, op=dist.ReduceOp.MAX, group=groups["model"])
    assert norm.item() == size - 1
    for group in groups.values():
        dist.destroy_process_group(group)
    dist.barrier()


def test_groups_of_megatron(world):
    world.run(check_megatron)


def check_64_groups(rank, size):
    """64 groups alive, used in opposite orders by odd and even ranks."""
    members = [sorted({index % size, (index // size + index) % size}) for index in range(64)]
    groups = [dist.new_group(ranks) for ranks in members]
    mine = [index for index, ranks in enumerate(members) if rank in ranks]
    works = []
    for index in mine if rank % 2 == 0 else reversed(mine):
        tensor = torch.full((index + 1,), float(rank))
        works.append((index, tensor, dist.all_reduce(tensor, group=groups[index], async_op=True)))
    for index, tensor, work in works:
        work.wait()
        assert tensor.eq(sum(members[index])).all()
    dist.barrier()
    for index in mine:
        dist.destroy_process_group(groups[index])


def test_64_groups_in_opposite_orders(world):
    world.run(check_64_groups)
