"""What trainers call: the same results as with Gloo, and equal on all ranks."""

import contextlib
import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ranks import World

STEPS = 4


@pytest.fixture(scope="module", params=[[0, 0], [0, 0, 1, 1]], ids=["1x2", "2x2"])
def world(request):
    world = World(len(request.param), request.param)
    try:
        yield world
        world.close()
    finally:
        world.kill()


def make_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 8))


def batch(rank, step):
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(16, 64, generator=generator), torch.randn(16, 8, generator=generator)


def train(model, rank, steps=STEPS, optimizer=None, context=None):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for step in range(steps):
        with context(step) if context else contextlib.nullcontext():
            x, y = batch(rank, step)
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
        if context is None or step % 2 == 1:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gloo_group(size):
    return dist.new_group(list(range(size)), backend="gloo")


def assert_same_on_all_ranks(tensor, size):
    out = torch.empty(size * tensor.numel(), dtype=tensor.dtype)
    dist.all_gather_into_tensor(out, tensor.contiguous())
    rows = out.view(size, -1)
    assert all(torch.equal(row, rows[0]) for row in rows)


def check_ddp(rank, size, variant):
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    results = {}
    for name, group in (("ours", None), ("gloo", gloo_group(size))):
        model = make_model()
        arguments = {"process_group": group, "bucket_cap_mb": 0.1}
        if variant == "static_graph":
            arguments["static_graph"] = True
        if variant == "unused":
            arguments["find_unused_parameters"] = True
        if variant == "views":
            arguments["gradient_as_bucket_view"] = True
        ddp = DistributedDataParallel(model, **arguments)
        if variant == "fp16_hook":
            ddp.register_comm_hook(group, default_hooks.fp16_compress_hook)
        if variant == "allreduce_hook":
            ddp.register_comm_hook(group, default_hooks.allreduce_hook)
        context = None
        if variant == "no_sync":
            context = lambda step: ddp.no_sync() if step % 2 == 0 else contextlib.nullcontext()  # noqa: E731
        if variant == "join":
            with ddp.join():
                train(ddp, rank, STEPS + rank)
        else:
            train(ddp, rank, context=context)
        results[name] = weights_of(model)
    assert_same_on_all_ranks(results["ours"], size)
    # Gloo rounds to float16 at every addition, ours once per host.
    tolerance = 1e-3 if variant == "fp16_hook" else 1e-6
    assert torch.allclose(results["ours"], results["gloo"], rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize(
    "variant", ["plain", "static_graph", "unused", "views", "fp16_hook", "allreduce_hook", "no_sync", "join"]
)
def test_ddp_equals_gloo(world, variant):
    world.run(check_ddp, variant)


def check_ddp_memory(rank, size):
    import trainyard_collective

    before = trainyard_collective.arena_stats()["used_bytes"]
    ddp = DistributedDataParallel(make_model())
    train(ddp, rank)
    return trainyard_collective.arena_stats()["used_bytes"] - before


def test_ddp_takes_its_buckets_from_shared_memory(world):
    size = sum(p.numel() * 4 for p in make_model().parameters())
    assert all(used >= size for used in world.run(check_ddp_memory))


def check_fsdp(rank, size, precision, shared):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    import trainyard_collective

    torch.manual_seed(1)
    reference = make_model()
    ddp = DistributedDataParallel(copy.deepcopy(reference))
    expected = train(ddp, rank)

    mesh = init_device_mesh("cpu", (size,))
    model = copy.deepcopy(reference)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if precision else None
    for layer in [m for m in model if isinstance(m, nn.Linear)]:
        fully_shard(layer, mesh=mesh, **({"mp_policy": policy} if policy else {}))
    fully_shard(model, mesh=mesh, **({"mp_policy": policy} if policy else {}))
    if shared:
        assert trainyard_collective.share_fsdp_memory(model) == 4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for step in range(STEPS):
        x, y = batch(rank, step)
        loss = nn.functional.mse_loss(model(x).float(), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    tolerance = 3e-2 if precision else 1e-5
    assert losses == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
@pytest.mark.parametrize("precision", [False, True], ids=["f32", "bf16"])
def test_fsdp2_equals_ddp(world, precision, shared):
    world.run(check_fsdp, precision, shared)


def check_hsdp(rank, size):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    reference = make_model()
    expected = train(DistributedDataParallel(copy.deepcopy(reference)), rank)
    mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("replicate", "shard"))
    model = copy.deepcopy(reference)
    fully_shard(model, mesh=mesh)
    assert train(model, rank) == pytest.approx(expected, rel=1e-5)


def test_hsdp_equals_ddp(world):
    world.run(check_hsdp)


def check_fsdp1(rank, size):
    from torch.distributed.fsdp import FullyShardedDataParallel

    reference = make_model()
    expected = train(DistributedDataParallel(copy.deepcopy(reference)), rank)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FullyShardedDataParallel(copy.deepcopy(reference), device_id=torch.device("cpu"))
        assert train(model, rank) == pytest.approx(expected, rel=1e-5)


def test_fsdp1_equals_ddp(world):
    world.run(check_fsdp1)


def check_zero(rank, size):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    results = []
    for sharded in (False, True):
        model = make_model()
        ddp = DistributedDataParallel(model)
        optimizer = (
            ZeroRedundancyOptimizer(ddp.parameters(), torch.optim.Adam, lr=0.01)
            if sharded
            else torch.optim.Adam(ddp.parameters(), lr=0.01)
        )
        train(ddp, rank, optimizer=optimizer)
        if sharded:
            optimizer.consolidate_state_dict(0)
        results.append(weights_of(model))
    assert torch.allclose(*results, rtol=1e-5, atol=1e-6)


def test_zero_redundancy_optimizer(world):
    world.run(check_zero)


def check_tensor_parallel(rank, size):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (size,))
    torch.manual_seed(3)
    block = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
    x = torch.randn(8, 32)
    expected = block(x)
    expected.sum().backward()
    gradient = block[0].weight.grad.clone()
    block.zero_grad()
    parallel = parallelize_module(block, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    out = parallel(x)
    assert torch.allclose(out, expected, atol=1e-5)
    out.sum().backward()
    assert torch.allclose(parallel[0].weight.grad.full_tensor(), gradient, atol=1e-5)

    whole = torch.arange(64 * 6, dtype=torch.float32).view(64, 6)
    sharded = distribute_tensor(whole, mesh, [Shard(0)])
    assert torch.equal(sharded.full_tensor(), whole)
    assert torch.equal(sharded.redistribute(mesh, [Shard(1)]).full_tensor(), whole)
    partial = DTensor.from_local(torch.ones(4 * size, 3), mesh, [dist.tensor.Partial()])
    assert torch.equal(partial.redistribute(mesh, [Shard(0)]).to_local(), torch.full((4, 3), float(size)))
    assert torch.equal(partial.redistribute(mesh, [Replicate()]).to_local(), torch.full((4 * size, 3), float(size)))


def test_dtensor_and_tensor_parallelism(world):
    world.run(check_tensor_parallel)


def check_functional(rank, size):
    import torch.distributed._functional_collectives as funcol

    group = dist.group.WORLD
    x = torch.full((6,), float(rank + 1))
    total = sum(range(1, size + 1))
    assert bool((funcol.all_reduce(x, "sum", group) == total).all())
    gathered = funcol.all_gather_tensor(x, 0, group)
    assert torch.equal(gathered.view(size, 6)[:, 0], torch.arange(1.0, size + 1))
    scattered = funcol.reduce_scatter_tensor(torch.ones(2 * size), "sum", 0, group)
    assert bool((scattered == size).all())
    many = funcol.all_reduce_coalesced([torch.ones(2), torch.ones(3)], "sum", group)
    assert all(bool((t == size).all()) for t in many)
    swapped = funcol.all_to_all_single(torch.full((size,), float(rank)), None, None, group)
    assert torch.equal(swapped + 0, torch.arange(float(size)))


def test_functional_collectives(world):
    world.run(check_functional)


def check_pipeline(rank, size):
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    torch.manual_seed(5)
    layers = [nn.Linear(16, 16) for _ in range(size)]
    whole = nn.Sequential(*layers)
    x = torch.randn(8, 16)
    y = torch.randn(8, 16)
    expected = nn.functional.mse_loss(whole(x), y)
    expected.backward()
    gradient = layers[rank].weight.grad.clone()
    layers[rank].zero_grad()
    stage = PipelineStage(layers[rank], rank, size, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, n_microbatches=4, loss_fn=nn.functional.mse_loss)
    losses = []
    if rank == 0:
        schedule.step(x)
    elif rank == size - 1:
        schedule.step(target=y, losses=losses)
        assert torch.stack(losses).mean().item() == pytest.approx(expected.item(), rel=1e-5)
    else:
        schedule.step()
    assert torch.allclose(layers[rank].weight.grad, gradient, atol=1e-6)


def test_pipelining(world):
    world.run(check_pipeline)


def check_checkpoint(rank, size, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (size,))
    whole = torch.arange(40.0).view(8, 5)
    state = {"sharded": distribute_tensor(whole, mesh, [Shard(0)]), "step": torch.tensor(7)}
    dcp.save(state, checkpoint_id=folder)
    fresh = {"sharded": distribute_tensor(torch.zeros(8, 5), mesh, [Shard(0)]), "step": torch.tensor(0)}
    dcp.load(fresh, checkpoint_id=folder)
    assert torch.equal(fresh["sharded"].full_tensor(), whole) and fresh["step"] == 7


def test_distributed_checkpoint(world, tmp_path):
    world.run(check_checkpoint, str(tmp_path / "checkpoint"))


def check_old_interface(rank, size):
    import os

    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import smdistributed.dataparallel
        import smdistributed.dataparallel.torch.distributed as old
        from smdistributed.dataparallel import exceptions
        from smdistributed.dataparallel.torch.parallel import DistributedDataParallel as OldDDP
        from smdistributed.dataparallel.torch.parallel.distributed import DistributedDataParallel as SameDDP

        assert OldDDP is SameDDP and issubclass(exceptions.SMDDPError, Exception)
        assert not hasattr(smdistributed, "__file__") or smdistributed.__file__ is None
        old.init_process_group("ignored", whatever=1)
        ddp = OldDDP(make_model(), broadcast_buffers=False, gradient_accumulation_steps=2)
    assert any(issubclass(w.category, DeprecationWarning) and "torch_smddp" in str(w.message) for w in caught)
    assert (old.get_rank(), old.get_world_size(), old.get_local_rank()) == (rank, size, rank)
    assert old.is_available() and old.is_initialized()
    x = torch.full((4,), float(rank))
    old.all_reduce(x, op=old.ReduceOp.AVERAGE)
    assert bool((x == (size - 1) / 2).all())
    outs = [torch.empty(4) for _ in range(size)]
    assert old.all_gather(outs, torch.full((4,), float(rank)), async_op=True).wait()
    old.barrier()
    for step in range(4):
        a, b = batch(rank, step)
        nn.functional.mse_loss(ddp(a), b).backward()
    gradient = torch.cat([p.grad.flatten() for p in ddp.parameters()])
    assert_same_on_all_ranks(gradient, size)


def test_the_interface_of_versions_1_still_runs(world):
    world.run(check_old_interface)
