"""Larger and odd worlds, and schedules that the planner would not choose in so small ones."""

import signal
import time

import pytest
import torch
import torch.distributed as dist

from ranks import World
from test_faults import RAISE_SECONDS, SLACK_SECONDS, loop_a_little, loop_until_error
from test_matrix import check_movers, check_premul, check_reductions, run_sizes
from test_semantics import count_resources, measure_traffic, run_program

SIZES = [0, 1, 1023, 70001]
# 400 slices of a megabyte: numbers of slices wrap.
SLICES = "slice=4096,railoneshot=0,smallhierarchy=0,probe=0"
# name: hosts of the ranks, TRAINYARD_COLLECTIVE_PLAN
WORLDS = {
    "1x1": ([0], ""),
    "1x5": ([0] * 5, ""),
    "1x8": ([0] * 8, ""),
    "2x3": ([0, 0, 0, 1, 1, 1], ""),
    "2x4": ([0] * 4 + [1] * 4, ""),
    "3x2": ([0, 0, 1, 1, 2, 2], ""),
    "4x2": ([0, 0, 1, 1, 2, 2, 3, 3], ""),
    "1x3 by reading": ([0] * 3, "reads=1,probe=0"),
    "1x3 staged": ([0] * 3, "reads=0"),
    "2x2 in slices": ([0, 0, 1, 1], SLICES),
    "3x1 in slices": ([0, 1, 2], SLICES),
    "3x2 in a ring": ([0, 0, 1, 1, 2, 2], f"ring=3,{SLICES}"),
    "5x1 in a ring": ([0, 1, 2, 3, 4], f"ring=3,{SLICES}"),
    "2x2 flat": ([0, 0, 1, 1], "flat=1"),
}


@pytest.fixture(params=list(WORLDS))
def odd(request):
    hosts, plan = WORLDS[request.param]
    world = World(len(hosts), hosts, environment={"TRAINYARD_COLLECTIVE_PLAN": plan})
    try:
        yield world
    finally:
        world.kill()


def check_equal_bits(rank, size):
    """Sums of numbers that round: all ranks have the same, and so has a second run."""
    generator = torch.Generator().manual_seed(rank)
    values = torch.randn(100003, generator=generator)
    results = []
    for _ in range(2):
        x = values.clone()
        dist.all_reduce(x)
        results.append(x)
    assert torch.equal(results[0], results[1])
    return results[0].view(torch.int32).sum(dtype=torch.int64).item(), results[0][::997].tolist()


def test_all_operations_work_in_odd_worlds_and_under_every_schedule(odd):
    for dtype, op in ((torch.float32, "SUM"), (torch.bfloat16, "AVG"), (torch.int64, "MIN")):
        odd.run(run_sizes, check_reductions, (dtype, op), SIZES)
    if odd.size > 1:  # somebody to send to
        odd.run(run_sizes, check_movers, (torch.float32,), SIZES)
    odd.run(run_sizes, check_premul, (), [3, 40001])
    odd.run(run_program, 1000, 25)
    bits = odd.run(check_equal_bits)
    assert all(result == bits[0] for result in bits)
    odd.close()


@pytest.mark.parametrize("name", ["4x2", "5x1 in a ring", "3x2 in a ring"])
def test_bytes_between_hosts_are_the_lower_bound_for_many_hosts(name):
    hosts, plan = WORLDS[name]
    size, m = len(hosts), max(hosts) + 1
    numel = 16 * size * m * 100
    world = World(size, hosts, environment={"TRAINYARD_COLLECTIVE_PLAN": f"{plan},probe=0".strip(",")})
    try:
        results = world.run(measure_traffic, numel)
        for host in range(m):
            of_host = [result for result, h in zip(results, hosts) if h == host]
            assert sum(r["all_reduce"] for r in of_host) == 2 * (m - 1) * numel * 4 // m
            assert sum(r["all_gather"] for r in of_host) == (m - 1) * numel * size * 4 // m
            assert sum(r["reduce_scatter"] for r in of_host) == (m - 1) * numel * size * 4 // m
        world.close()
    finally:
        world.kill()


def read_plan(rank, size, numel):
    """What this rank writes to standard error during an AllReduce."""
    import os
    import tempfile

    with tempfile.TemporaryFile("w+") as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            for _ in range(2):
                dist.all_reduce(torch.ones(numel))
        finally:
            os.dup2(before, 2)
            os.close(before)
        file.seek(0)
        return file.read().splitlines()


@pytest.mark.parametrize("hosts", [[0, 0], [0, 0, 1, 1], [0, 1, 2]], ids=["1x2", "2x2", "3x1"])
def test_ranks_agree_on_what_the_probe_found_and_log_it_once(hosts):
    world = World(len(hosts), hosts, environment={"TRAINYARD_COLLECTIVE_LOG": "plan"})
    try:
        logs = world.run(read_plan, 400000)
        measured = [line for line in logs[0] if "measured" in line]
        assert len(measured) == 1 and "meeting" in measured[0] and "links" in measured[0], logs[0]
        choices = [sorted(line.split(" ", 3)[3] for line in log if "measured" not in line) for log in logs]
        assert choices[0] and all(choice == choices[0] for choice in choices), choices
        # What was found holds for every group of the same processes.
        assert not [line for log in world.run(read_plan_of_new_group, 400000) for line in log if "measured" in line][1:]
        world.close()
    finally:
        world.kill()


def read_plan_of_new_group(rank, size, numel):
    group = dist.new_group(list(range(size)))
    world, dist.group.WORLD = dist.group.WORLD, group
    try:
        return read_plan(rank, size, numel)
    finally:
        dist.group.WORLD = world
        dist.destroy_process_group(group)


@pytest.mark.parametrize("name", ["1x3 by reading", "2x2 in slices", "5x1 in a ring"])
def test_when_a_rank_is_killed_under_any_schedule_then_the_others_name_it(name):
    hosts, plan = WORLDS[name]
    world = World(len(hosts), hosts, environment={"TRAINYARD_COLLECTIVE_PLAN": plan}, timeout_seconds=120)
    try:
        numel, victim = 2**20, world.size - 1
        world.run(loop_a_little, numel)
        world.start(loop_until_error, numel)
        time.sleep(0.5)
        world.signal(victim, signal.SIGKILL)
        for rank in range(victim):
            kind, message = world.answer(rank, RAISE_SECONDS + SLACK_SECONDS)
            assert kind == "ok" and f"rank {victim} (host host-" in message, message
    finally:
        world.kill()


def send_much(rank, size, numel):
    """Sends while the other rank is stopped; returns by how many bytes this process has grown meanwhile."""
    x = torch.ones(numel)
    dist.broadcast(torch.ones(1), 0)
    before = count_resources()[0]
    works = [dist.broadcast(x, 0, async_op=True) for _ in range(4)]
    time.sleep(1)
    grown = count_resources()[0] - before
    done = [work.is_completed() for work in works]
    dist.distributed_c10d._get_default_store().set("looked", "")
    for work in works:
        work.wait()
    return grown, done


def test_a_receiver_that_does_not_read_costs_the_sender_no_memory():
    world = World(2, [0, 1], environment={"TRAINYARD_COLLECTIVE_PLAN": "probe=0"})
    try:
        numel = 32 << 20 >> 2
        world.run(loop_a_little, 10)
        world.start(send_much, numel, ranks=[0])
        world.start(receive_late, numel, ranks=[1])
        kind, answer = world.answer(0)
        assert kind == "ok", answer
        grown, done = answer
        assert done == [False] * 4 and grown < 8 << 20, answer
        assert world.answer(1) == ("ok", True)
        world.close()
    finally:
        world.kill()


def receive_late(rank, size, numel):
    x = torch.zeros(numel)
    dist.broadcast(torch.ones(1), 0)
    # The condition itself: a receiver that is not there yet, until the sender has looked.
    dist.distributed_c10d._get_default_store().wait(["looked"])
    for _ in range(4):
        dist.broadcast(x, 0)
    return bool((x == 1).all())
