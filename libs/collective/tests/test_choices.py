"""What ranks choose from what they measure, and where they run."""

import time

import torch
import torch.distributed as dist

from ranks import World


def try_large(rank, size, numel):
    """Sums large enough to be their own measurement: (lines of the plan, bits of each sum)."""
    import os
    import tempfile

    values = torch.randn(numel, generator=torch.Generator().manual_seed(rank))
    bits = set()
    with tempfile.TemporaryFile("w+") as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            for _ in range(5):
                whole = values.clone()
                dist.all_reduce(whole)
                bits.add((whole.view(torch.int32).sum(dtype=torch.int64).item(), tuple(whole[:: numel // 7].tolist())))
                gathered = torch.empty(numel)
                dist.all_gather_into_tensor(gathered, values[: numel // size])
                dist.broadcast(gathered, 0)
                part = torch.empty(numel // size)
                dist.reduce_scatter_tensor(part, gathered)
                assert torch.equal(part, gathered.chunk(size)[rank] * size)
        finally:
            os.dup2(before, 2)
            os.close(before)
        file.seek(0)
        return file.read().splitlines(), bits


def test_large_operations_try_both_ways_with_the_same_bits():
    world = World(2, environment={"TRAINYARD_COLLECTIVE_LOG": "plan"})
    try:
        (log, bits), (other_log, other_bits) = world.run(try_large, 9 * 2**20)  # 36 MiB
        assert len(bits) == 1 and bits == other_bits
        readable = "memory readable" in next(line for line in log if "measured" in line)
        for lines in (log, other_log):
            for op in ("all_reduce", "all_gather", "broadcast", "reduce_scatter"):
                ways = {line.split(": ")[2].split()[0] for line in lines if f"host {op} of" in line}
                assert ways == ({"staged", "one-copy"} if readable else {"staged"}), (op, lines)
        world.close()
    finally:
        world.kill()


def meet_on_one_core(rank, size):
    """Lets all ranks start on one core; returns whether this one may run where it might before."""
    import os

    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    dist.barrier()
    os.sched_setaffinity(0, allowed)
    end = time.monotonic() + 0.2
    more = torch.ones(1)
    while more.item() > 0:  # rank 0 says when it is enough
        more = torch.tensor([float(rank > 0 or time.monotonic() < end)])
        dist.all_reduce(more, op=dist.ReduceOp.MIN)
    return os.sched_getaffinity(0) == allowed


def test_ranks_that_come_apart_keep_their_affinity():
    world = World(3)
    try:
        assert world.run(meet_on_one_core) == [True] * 3
        world.close()
    finally:
        world.kill()
