"""What callers may rely on beyond results: order, futures, groups, errors."""

import random
import threading
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from conftest import world_for
from ranks import World


def backend_of(group=None):
    group = group or dist.group.WORLD
    return group._get_backend(torch.device("cpu"))


def check_async(rank, size):
    total = sum(range(size))
    xs = [torch.full((1000 * (i % 7) + 1,), float(rank + i)) for i in range(64)]
    works = [dist.all_reduce(x, async_op=True) for x in xs]
    for i in reversed(range(64)):
        works[i].wait()
        assert works[i].is_completed() and works[i].is_success()
        assert torch.equal(xs[i], torch.full_like(xs[i], float(total + i * size)))

    x = torch.ones(100000)
    seen = []
    future = dist.all_reduce(x, async_op=True).get_future().then(lambda f: seen.append(f.value()[0]) or f.value()[0] * 2)
    assert bool((future.wait() == 2 * size).all()) and seen[0].data_ptr() == x.data_ptr()

    # A synchronous call behind a queue of asynchronous ones keeps its place.
    y = torch.ones(300000)
    first = dist.all_reduce(y, async_op=True)
    dist.all_reduce(y)
    first.wait()
    assert bool((y == size * size).all())

    # The handle and the tensor may be dropped: the work keeps the memory.
    for _ in range(20):
        dist.all_reduce(torch.ones(50000), async_op=True)
    dist.barrier()

    # Waiting in another thread.
    z = torch.ones(200000)
    work = dist.all_reduce(z, async_op=True)
    thread = threading.Thread(target=work.wait)
    thread.start()
    thread.join()
    assert bool((z == size).all())


def test_asynchronous_operations_keep_order_and_complete_futures(world):
    world.run(check_async)


def check_groups(rank, size):
    everyone = list(range(size))
    pairs = [(a, b) for a in everyone for b in everyone if a < b]
    groups = {pair: dist.new_group(list(pair)) for pair in pairs}
    many = [dist.new_group(everyone) for _ in range(8)]
    alone = [dist.new_group([r]) for r in everyone]
    for pair, group in groups.items():
        if rank in pair:
            x = torch.full((1000,), float(rank))
            dist.all_reduce(x, group=group)
            assert bool((x == sum(pair)).all())
    # Different ranks use the groups in different orders, asynchronously.
    order = list(range(8))
    random.Random(rank).shuffle(order)
    xs = {i: torch.full((5000,), float(rank + i)) for i in order}
    works = [dist.all_reduce(xs[i], group=many[i], async_op=True) for i in order]
    for work in works:
        work.wait()
    assert all(bool((xs[i] == sum(everyone) + i * size).all()) for i in order)
    x = torch.full((7,), 3.0)
    dist.all_reduce(x, group=alone[rank])
    dist.all_gather([out := torch.empty(7)], x, group=alone[rank])
    assert bool((out == 3).all())
    for group in [*groups.values(), *many, *alone]:
        if group is not dist.GroupMember.NON_GROUP_MEMBER:
            dist.destroy_process_group(group)
    # Numbers of groups are used again by torch; ours must tell lives apart.
    again = dist.new_group(everyone)
    x = torch.ones(10)
    dist.all_reduce(x, group=again)
    assert bool((x == size).all())
    dist.destroy_process_group(again)


def test_groups_are_independent_and_can_be_made_again(world):
    world.run(check_groups)


def check_local_group(rank, size):
    if rank < 2:
        group = dist.new_group([0, 1], use_local_synchronization=True)
        x = torch.ones(10)
        dist.all_reduce(x, group=group)
        assert bool((x == 2).all())
        dist.destroy_process_group(group)


def test_a_group_made_by_its_members_only(world):
    if world.size < 3:
        pytest.skip("needs ranks outside the group")
    world.run(check_local_group)


def check_beside_gloo(rank, size):
    gloo = dist.new_group(list(range(size)), backend="gloo")
    for _ in range(3):
        x, y = torch.ones(1000), torch.ones(1000)
        a = dist.all_reduce(x, async_op=True)
        dist.all_reduce(y, group=gloo)
        a.wait()
        assert torch.equal(x, y)
    dist.destroy_process_group(gloo)


def test_works_beside_gloo(world):
    world.run(check_beside_gloo)


def check_messages(rank, size):
    if rank == 0:
        # Tags are matched, not arrival order.
        for tag in (5, 3, 4):
            dist.send(torch.full((200000,), float(tag)), 1, tag=tag)
    if rank == 1:
        for tag in (3, 4, 5):
            x = torch.empty(200000)
            dist.recv(x, 0, tag=tag)
            assert bool((x == tag).all())
    if rank == 0:
        got = set()
        for _ in range(size - 1):
            x = torch.empty(10)
            source = dist.recv(x, src=None)
            assert bool((x == source).all())
            got.add(source)
        assert got == set(range(1, size))
    else:
        dist.send(torch.full((10,), float(rank)), 0)
    dist.barrier()
    # Everyone sends a large message to everyone at once, then receives.
    outs = {r: torch.empty(300000) for r in range(size) if r != rank}
    ops = []
    for r in outs:
        ops.append(dist.P2POp(dist.isend, torch.full((300000,), float(rank * 10 + r)), r))
        ops.append(dist.P2POp(dist.irecv, outs[r], r))
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    assert all(bool((out == r * 10 + rank).all()) for r, out in outs.items())
    # Messages do not wait for collectives.
    if rank == 0:
        work = dist.all_reduce(torch.ones(10), async_op=True)
        dist.send(torch.ones(3), 1)
        work.wait()
    else:
        if rank == 1:
            dist.recv(torch.empty(3), 0)
        dist.all_reduce(torch.ones(10))
    strided = torch.zeros(6, 2)[:, 0]
    if rank == 0:
        dist.send(torch.arange(12.0).view(6, 2)[:, 1], 1)
    elif rank == 1:
        dist.recv(strided, 0)
        assert strided.tolist() == [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]


def test_point_to_point(world):
    world.run(check_messages)


def check_sequence(rank, size):
    backend = backend_of()
    before = backend._get_sequence_number_for_group()
    dist.all_reduce(torch.ones(1))
    dist.all_reduce(torch.empty(0))
    dist.barrier()
    return backend._get_sequence_number_for_group() - before, backend._get_sequence_number_for_group()


def test_sequence_numbers_count_every_collective_on_all_ranks(world):
    results = world.run(check_sequence)
    assert all(result == results[0] and result[0] == 3 for result in results)


def check_arguments(rank, size):
    with pytest.raises(ValueError, match="AVG is not defined for tensors of int32"):
        dist.all_reduce(torch.ones(3, dtype=torch.int32), op=dist.ReduceOp.AVG)
    with pytest.raises(ValueError, match="BAND is not defined for tensors of float32"):
        dist.all_reduce(torch.ones(3), op=dist.ReduceOp.BAND)
    with pytest.raises(ValueError, match=r"the input has 7 elements .* but must have 3 \(output\)"):
        backend_of()._reduce_scatter_base(torch.ones(3), torch.ones(7))
    with pytest.raises(ValueError, match="split sizes"):
        dist.all_to_all_single(torch.ones(size), torch.ones(size), [1] * size, [2] * size)
    with pytest.raises(ValueError, match="must be a rank of the group"):
        backend_of().broadcast(torch.ones(3), root=size)
    # None of this ended the group.
    x = torch.ones(3)
    dist.all_reduce(x)
    assert bool((x == size).all())


def test_wrong_arguments_raise_at_the_call_and_leave_the_group_usable(world):
    world.run(check_arguments)


# --- random programs against a simulator ---------------------------------


def run_program(rank, size, seed, length):
    """Runs one random program; the same code computes what must come out."""
    rng = random.Random(seed)
    for step in range(length):
        op = rng.choice(
            ["all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "all_to_all", "gather", "scatter"]
        )
        numel = rng.choice([0, 1, 3, 100, 5000, 9000, 140000])
        dtype = rng.choice([torch.float32, torch.int64, torch.bfloat16])
        root = rng.randrange(size)
        in_arena = rng.random() < 0.3
        wait_late = rng.random() < 0.3

        def make(r, n, salt=0):
            return ((torch.arange(n) + r * 5 + salt + step) % 7).to(dtype)

        def mine(n, salt=0):
            value = make(rank, n, salt)
            if in_arena and n > 0:
                place = backend_of().allocate_tensor(n, dtype=dtype, device=torch.device("cpu"))
                return place.copy_(value)
            return value

        total = sum(make(r, numel).double() for r in range(size)).to(dtype)
        if op == "all_reduce":
            x = mine(numel)
            work = dist.all_reduce(x, async_op=True)
            expected = [(x, total)]
        elif op == "all_gather":
            x = torch.empty(size * numel, dtype=dtype)
            work = dist.all_gather_into_tensor(x, mine(numel), async_op=True)
            expected = [(x, torch.cat([make(r, numel) for r in range(size)]))]
        elif op == "reduce_scatter":
            x = torch.empty(numel, dtype=dtype)
            work = dist.reduce_scatter_tensor(x, mine(numel * size), async_op=True)
            whole = sum(make(r, numel * size).double() for r in range(size)).to(dtype)
            expected = [(x, whole.narrow(0, rank * numel, numel))]
        elif op == "broadcast":
            x = mine(numel)
            work = dist.broadcast(x, root, async_op=True)
            expected = [(x, make(root, numel))]
        elif op == "reduce":
            x = mine(numel)
            work = dist.reduce(x, root, async_op=True)
            expected = [(x, total if rank == root else make(rank, numel))]
        elif op == "all_to_all":
            x = torch.empty(size * numel, dtype=dtype)
            work = dist.all_to_all_single(x, torch.cat([mine(numel, to) for to in range(size)]), async_op=True)
            expected = [(x, torch.cat([make(r, numel, rank) for r in range(size)]))]
        elif op == "gather":
            outs = [torch.empty(numel, dtype=dtype) for _ in range(size)] if rank == root else None
            work = dist.gather(mine(numel), outs, root, async_op=True)
            expected = [(out, make(r, numel)) for r, out in enumerate(outs or [])]
        else:
            x = torch.empty(numel, dtype=dtype)
            work = dist.scatter(
                x, [make(root, numel, r) for r in range(size)] if rank == root else None, root, async_op=True
            )
            expected = [(x, make(root, numel, rank))]
        if wait_late:
            dist.all_reduce(torch.ones(1))
        work.wait()
        for got, want in expected:
            assert torch.equal(got, want), f"seed {seed} step {step}: {op} of {numel} {dtype}"


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_agree_with_a_simulator(world, seed):
    world.run(run_program, seed, 25)


# --- traffic ---------------------------------------------------------------


def measure_traffic(rank, size, numel):
    backend = backend_of()

    def sent(fn):
        before = backend._traffic()[0]
        fn()
        return backend._traffic()[0] - before

    x = torch.ones(numel)
    out = torch.empty(numel * size)
    return {
        "hosts": backend._host_of_ranks(),
        "all_reduce": sent(lambda: dist.all_reduce(x)),
        "all_gather": sent(lambda: dist.all_gather_into_tensor(out, x)),
        "reduce_scatter": sent(lambda: dist.reduce_scatter_tensor(x, out)),
    }


@pytest.mark.parametrize("topology", ["1x4", "2x1", "2x2", "3x1"])
def test_bytes_between_hosts_are_the_lower_bound(topology):
    numel = 3 * 2**18
    results = world_for(topology).run(measure_traffic, numel)
    hosts = results[0]["hosts"]
    size, m = len(hosts), len(set(hosts))
    for host in set(hosts):
        of_host = [result for result, h in zip(results, hosts) if h == host]
        # 2 (M-1)/M S for AllReduce, (M-1)/M S for the others (S: all data).
        assert sum(r["all_reduce"] for r in of_host) == 2 * (m - 1) * numel * 4 // m
        assert sum(r["all_gather"] for r in of_host) == (m - 1) * numel * size * 4 // m
        assert sum(r["reduce_scatter"] for r in of_host) == (m - 1) * numel * size * 4 // m


def read_hosts(rank, size):
    return backend_of()._host_of_ranks()


@pytest.mark.parametrize("topology,hosts", [("1x3", [0, 0, 0]), ("2x2", [0, 0, 1, 1]), ("3+1", [0, 0, 0, 1])])
def test_hosts_are_found(topology, hosts):
    assert all(result == hosts for result in world_for(topology).run(read_hosts))


# --- resources -------------------------------------------------------------


def count_resources():
    import os

    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * 4096
    return resident, len(os.listdir("/proc/self/fd"))


def check_flat(rank, size):
    def burst(n):
        for i in range(n):
            x = torch.ones(100 + i % 5)
            dist.all_reduce(x)
            if i % 10 == 0:
                dist.all_reduce(torch.ones(20000), async_op=True).wait()
                out = torch.empty(size * 10)
                dist.all_gather_into_tensor(out, torch.ones(10))
                place = backend_of().allocate_tensor(30000, dtype=torch.float32, device=torch.device("cpu"))
                dist.all_reduce(place.fill_(1))
            if i % 50 == 0:
                if rank == 0:
                    dist.send(x, 1)
                elif rank == 1:
                    dist.recv(x, 0)

    burst(2500)
    before = count_resources()
    burst(7500)
    after = count_resources()
    assert after[1] == before[1], f"descriptors {before[1]} -> {after[1]}"
    assert after[0] - before[0] < 4 << 20, f"resident bytes {before[0]} -> {after[0]}"
    import trainyard_collective

    stats = trainyard_collective.arena_stats()
    assert stats["backed_bytes"] < 16 << 20, stats


@pytest.mark.parametrize("topology", ["1x2", "2x1"])
def test_memory_and_descriptors_are_flat_over_10000_operations(topology):
    world_for(topology).run(check_flat)


def threads_and_descriptors(rank, size):
    import os

    return sorted(
        open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")
    )


def destroy_everything(rank, size):
    import os

    dist.all_reduce(torch.ones(3), async_op=True)
    if size > 1:
        dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, torch.ones(3), (rank + 1) % size),
                dist.P2POp(dist.irecv, torch.ones(3), (rank - 1) % size),
            ]
        )
    dist.destroy_process_group()
    import gc

    gc.collect()
    names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
    return [name for name in names if name.startswith("trainyard")]


@pytest.mark.parametrize("hosts", [[0, 0], [0, 1]])
def test_destroying_the_group_ends_all_threads(hosts):
    world = World(2, hosts)
    try:
        assert world.run(destroy_everything) == [[], []]
        world.close()
        assert [process.exitcode for process in world.processes] == [0, 0]
    finally:
        world.kill()


def never_waited(rank, size):
    group = dist.new_group(list(range(size)), timeout=timedelta(seconds=60))
    for _ in range(10):
        dist.all_reduce(torch.ones(100000), group=group, async_op=True)
    started = time.monotonic()
    dist.destroy_process_group(group)
    return time.monotonic() - started


def test_operations_that_nobody_waits_for_do_not_hang_destroy(world):
    world.run(never_waited, seconds=60)


def detail_wrapper(rank, size):
    x = torch.ones(10)
    dist.all_reduce(x)
    assert bool((x == size).all())
    dist.barrier()


def test_debug_level_detail_works():
    world = World(2, environment={"TORCH_DISTRIBUTED_DEBUG": "DETAIL"})
    try:
        world.run(detail_wrapper)
        world.close()
    finally:
        world.kill()
