"""DDP's communication hooks, uneven inputs and optimizers that hook into it: Gloo's or plain DDP's results."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import (
    ddp_zero_hook,
    default_hooks,
    post_localSGD_hook,
    powerSGD_hook,
)
from torch.nn.parallel import DistributedDataParallel

from test_frameworks import STEPS, assert_same_on_all_ranks, batch, gloo_group, make_model, train, weights_of

pytestmark = pytest.mark.parametrize("topology", ["2x2"])


def chained_hook(group, bucket):
    """An average written with futures, as users write hooks."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    return work.get_future().then(lambda future: future.value()[0].div_(dist.get_world_size(group)))


def gathering_hook(group, bucket):
    size = dist.get_world_size(group)
    parts = [torch.empty_like(bucket.buffer()) for _ in range(size)]
    work = dist.all_gather(parts, bucket.buffer(), group=group, async_op=True)
    return work.get_future().then(lambda future: torch.stack(future.value()).mean(0))


def register(ddp, kind, group):
    if kind == "chained":
        ddp.register_comm_hook(group, chained_hook)
    elif kind == "gathering":
        ddp.register_comm_hook(group, gathering_hook)
    elif kind == "builtin":
        ddp._register_builtin_comm_hook(dist.BuiltinCommHookType.ALLREDUCE)
    elif kind == "builtin_fp16":
        ddp._register_builtin_comm_hook(dist.BuiltinCommHookType.FP16_COMPRESS)
    else:
        state = powerSGD_hook.PowerSGDState(
            group, matrix_approximation_rank=2, start_powerSGD_iter=2, min_compression_rate=1
        )
        hook = powerSGD_hook.powerSGD_hook
        ddp.register_comm_hook(state, default_hooks.fp16_compress_wrapper(hook) if "fp16" in kind else hook)


def check_hook(rank, size, kind):
    results = []
    for group in (dist.group.WORLD, gloo_group(size)):
        torch.manual_seed(0)
        model = make_model()
        # Hooks that communicate from a callback need a single bucket: between several, the order of operations would
        # depend on when callbacks run.
        ddp = DistributedDataParallel(model, process_group=group, bucket_cap_mb=25 if "power" in kind else 0.1)
        register(ddp, kind, group)
        train(ddp, rank)
        results.append(weights_of(model))
    assert_same_on_all_ranks(results[0], size)
    # Gloo rounds to float16 at every addition, ours once per host.
    assert torch.allclose(*results, rtol=1e-5, atol=2e-3 if "fp16" in kind else 1e-5)


@pytest.mark.parametrize("kind", ["chained", "gathering", "builtin", "builtin_fp16", "power", "power_fp16"])
def test_hooks_equal_gloo(world, kind):
    world.run(check_hook, kind)


def check_waiting_callback(rank, size):
    """A callback may wait for operations of the same group, at any depth, and others go on meanwhile."""

    def again(depth):
        def callback(future):
            value = future.value()[0]
            if depth == 0:
                return value
            return dist.all_reduce(value, async_op=True).get_future().then(again(depth - 1)).wait()

        return callback

    for _ in range(20):
        first = dist.all_reduce(torch.ones(3), async_op=True).get_future().then(again(3))
        assert first.wait().tolist() == [float(size**4)] * 3


def test_callbacks_may_wait_for_operations_of_their_group(world):
    world.run(check_waiting_callback)


def check_resize(rank, size):
    group = dist.group.WORLD._get_backend(torch.device("cpu"))
    tensor = group.allocate_tensor(1000, dtype=torch.float32, device=torch.device("cpu")).fill_(rank + 1)
    tensor.resize_(4000)[1000:] = 1
    dist.all_reduce(tensor)
    assert bool((tensor[:1000] == size * (size + 1) / 2).all()) and bool((tensor[1000:] == size).all())


def test_a_hook_may_resize_its_bucket(world):
    world.run(check_resize)


def check_local_sgd(rank, size):
    from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager

    subgroup, _ = dist.new_subgroups(2)
    model = make_model()
    ddp = DistributedDataParallel(model, bucket_cap_mb=0.1)
    state = post_localSGD_hook.PostLocalSGDState(dist.group.WORLD, subgroup, start_localSGD_iter=1)
    ddp.register_comm_hook(state, post_localSGD_hook.post_localSGD_hook)
    averager = PeriodicModelAverager(period=STEPS, warmup_steps=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        x, y = batch(rank, step)
        nn.functional.mse_loss(ddp(x), y).backward()
        optimizer.step()
        averager.average_parameters(ddp.parameters())
        optimizer.zero_grad()
        others = [torch.empty_like(weights_of(model)) for _ in range(size)]
        dist.all_gather(others, weights_of(model))
        pair = rank // 2 * 2
        assert torch.equal(others[pair], others[pair + 1]), "a subgroup trains together"
        # Together in the first step, apart between averages, together after one.
        apart = not torch.allclose(others[0], others[-1], atol=1e-7)
        assert apart == (0 < step % STEPS)


def test_local_sgd_averages_in_subgroups(world):
    world.run(check_local_sgd)


def check_overlapped_zero(rank, size):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    results = []
    for overlapped in (False, True):
        model = make_model()
        ddp = DistributedDataParallel(model, bucket_cap_mb=0.1, gradient_as_bucket_view=True)
        if overlapped:
            optimizer = ZeroRedundancyOptimizer(
                ddp.parameters(), torch.optim.SGD, overlap_with_ddp=True, parameters_as_bucket_view=True, lr=0.05
            )
            ddp.register_comm_hook(
                None, ddp_zero_hook.hook_with_zero_step(default_hooks.allreduce_hook, ddp, optimizer)
            )
        else:
            optimizer = torch.optim.SGD(ddp.parameters(), lr=0.05)
        # The first passes only tell the overlapped optimizer the buckets.
        for _ in range(2 if overlapped else 0):
            nn.functional.mse_loss(ddp(batch(rank, 0)[0]), batch(rank, 0)[1]).backward()
            optimizer.zero_grad()
        start = weights_of(model).clone()
        train(ddp, rank, optimizer=optimizer)
        results.append((start, weights_of(model)))
    assert torch.equal(results[0][0], results[1][0]), "nothing was stepped while the buckets were learned"
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)


def test_zero_overlapped_with_ddp(world):
    world.run(check_overlapped_zero)


def check_join_with_zero(rank, size):
    from torch.distributed.algorithms.join import Join
    from torch.distributed.optim import ZeroRedundancyOptimizer

    results = []
    for group in (None, gloo_group(size)):
        model = make_model()
        ddp = DistributedDataParallel(model, process_group=group)
        optimizer = ZeroRedundancyOptimizer(ddp.parameters(), torch.optim.Adam, process_group=group, lr=0.01)
        with Join([ddp, optimizer]):
            train(ddp, rank, STEPS + rank, optimizer=optimizer)
        results.append(weights_of(model))
    assert_same_on_all_ranks(results[0], size)
    assert torch.allclose(*results, atol=1e-6)


def test_join_of_ddp_and_zero_with_uneven_inputs(world):
    world.run(check_join_with_zero)


def check_buffers(rank, size):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 8))
    ddp = DistributedDataParallel(model)
    train(ddp, rank)
    ddp.eval()
    ddp(batch(rank, 9)[0])
    ddp.train()
    with torch.no_grad():
        ddp(batch(rank, 9)[0])
    # Buffers are sent at the start of a forward pass and then differ by that pass's own rows.
    running = model[1].running_mean.clone()
    dist.broadcast(running, 0)
    assert (rank == 0) == torch.equal(running, model[1].running_mean)
    assert_same_on_all_ranks(weights_of(model), size)


def test_buffers_are_broadcast(world):
    world.run(check_buffers)
