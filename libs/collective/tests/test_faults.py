"""Which rank dies, hangs or differs, and what the others then say and when.

Bounds are deadlines on conditions: a rank must have raised before them.
"""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from ranks import World

RAISE_SECONDS = 5
# For a machine that is busy with other things; the product's promise is above.
SLACK_SECONDS = 10


@pytest.fixture(params=[[0, 0], [0, 1], [0, 0, 1, 1]], ids=["1x2", "2x1", "2x2"])
def fresh(request):
    """A World of its own, since the test ends it."""
    world = World(len(request.param), request.param, timeout_seconds=120)
    try:
        yield world
    finally:
        world.kill()


def loop_until_error(rank, size, numel):
    """All-reduces until that raises; returns the message."""
    x = torch.ones(numel)
    try:
        while True:
            dist.all_reduce(x)
            x.fill_(1)
    except dist.DistBackendError as error:
        return str(error)


def wait_for_error(rank, size, kind):
    """Blocks in one operation that the victim never enters."""
    try:
        if kind == "barrier":
            dist.barrier()
        elif kind == "recv":
            dist.recv(torch.empty(10), src=size - 1 if rank != size - 1 else 0)
        else:
            dist.all_reduce(torch.ones(10), async_op=True).wait()
    except dist.DistBackendError as error:
        return str(error)
    return None


def errors_after(world, victim, ask):
    """Kills `victim` while the others run `ask`; returns their messages."""
    others = [rank for rank in range(world.size) if rank != victim]
    ask(others)
    killed = time.monotonic()
    world.signal(victim, signal.SIGKILL)
    messages = []
    for rank in others:
        kind, value = world.answer(rank, RAISE_SECONDS + SLACK_SECONDS)
        assert kind == "ok", value
        messages.append(value)
    return messages, time.monotonic() - killed


@pytest.mark.parametrize("victim", ["first", "last"])
@pytest.mark.parametrize("numel", [100, 4 * 2**20])
def test_when_a_rank_is_killed_in_all_reduce_then_the_others_name_it(fresh, victim, numel):
    victim = 0 if victim == "first" else fresh.size - 1
    fresh.run(loop_a_little, numel)
    fresh.start(loop_until_error, numel, ranks=[victim])

    def ask(others):
        fresh.start(loop_until_error, numel, ranks=others)
        time.sleep(0.5)

    messages, _ = errors_after(fresh, victim, ask)
    for message in messages:
        assert f"rank {victim} (host host-" in message and f"pid {fresh.pids[victim]}" in message, message


def loop_a_little(rank, size, numel):
    for _ in range(3):
        dist.all_reduce(torch.ones(numel))


@pytest.mark.parametrize("kind", ["barrier", "recv", "async"])
def test_when_a_rank_dies_while_others_wait_then_they_raise(fresh, kind):
    fresh.run(loop_a_little, 10)
    victim = fresh.size - 1
    messages, _ = errors_after(fresh, victim, lambda others: fresh.start(wait_for_error, kind, ranks=others))
    assert all(message and f"rank {victim}" in message for message in messages), messages


def fork_children(rank, size):
    from torch.utils.data import DataLoader, TensorDataset

    loop_a_little(rank, size, 1000)
    loader = DataLoader(TensorDataset(torch.arange(1000.0)), num_workers=2, multiprocessing_context="fork")
    iterator = iter(loader)
    next(iterator)
    loop_a_little(rank, size, 1000)
    globals()["kept"] = iterator  # the workers stay alive
    return [worker.pid for worker in iterator._workers]


def test_forked_data_loader_workers_do_not_hide_a_death(fresh):
    workers = fresh.run(fork_children)
    victim = fresh.size - 1
    try:
        messages, _ = errors_after(
            fresh, victim, lambda others: fresh.start(wait_for_error, "barrier", ranks=others)
        )
        assert all(f"rank {victim}" in message for message in messages)
    finally:
        for pid in workers[victim]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def time_out(rank, size, absent):
    # Long enough for all ranks to meet also where a machine stands still for seconds.
    group = dist.new_group(list(range(size)), timeout=timedelta(seconds=6))
    dist.all_reduce(torch.ones(3), group=group)
    dist.barrier()
    message = None
    if rank != absent:
        # The time of those that wait for this one is over first.
        if rank == absent - 1:
            time.sleep(0.5)
        try:
            dist.all_reduce(torch.ones(3), group=group)
        except dist.DistBackendError as error:
            message = str(error)
        try:
            dist.all_reduce(torch.ones(3), group=group)
            raise AssertionError("the group still works")
        except dist.DistBackendError:
            pass
    # Other groups live.
    x = torch.ones(3)
    dist.all_reduce(x)
    assert bool((x == size).all())
    return message


def test_when_a_rank_is_absent_then_the_others_time_out_and_name_it(fresh):
    absent = fresh.size - 1
    messages = fresh.run(time_out, absent)
    for rank, message in enumerate(messages):
        if rank != absent:
            assert "Timed out waiting 6000ms for all_reduce" in message or "nothing more from" in message, message
    # All are told by whose time was over first; the rank that waits for the absent one itself adds that.
    assert f"rank {absent}" in messages[absent - 1], messages


def test_when_a_rank_is_stopped_for_a_while_then_nothing_fails(fresh):
    fresh.run(loop_a_little, 1000)
    fresh.start(loop_a_little, 100000)
    fresh.signal(0, signal.SIGSTOP)
    time.sleep(2)
    fresh.signal(0, signal.SIGCONT)
    for rank in range(fresh.size):
        assert fresh.answer(rank) == ("ok", None)


def mismatch(rank, size, kind):
    group = dist.new_group(list(range(size)), timeout=timedelta(seconds=20))
    odd = rank == size - 1
    try:
        if kind == "operation":
            dist.broadcast(torch.ones(10), 0, group=group) if odd else dist.all_reduce(torch.ones(10), group=group)
        elif kind == "size":
            dist.all_reduce(torch.ones(12 if odd else 10), group=group)
        elif kind == "large size":
            dist.all_reduce(torch.ones(400000 if odd else 10), group=group)
        elif kind == "dtype":
            dist.all_reduce(torch.ones(10, dtype=torch.int32 if odd else torch.float32), group=group)
        elif kind == "reduce operation":
            dist.all_reduce(torch.ones(10), dist.ReduceOp.MAX if odd else dist.ReduceOp.SUM, group=group)
        elif kind == "root":
            dist.broadcast(torch.ones(10), 1 if odd else 0, group=group)
        elif kind == "splits":
            n = 3 if odd else 2
            dist.all_to_all_single(torch.ones(2 * size), torch.ones(n * size), group=group)
        # Who was served before the difference showed learns of it now.
        dist.barrier(group=group)
    except dist.DistBackendError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "kind,both",
    [
        ("operation", ("all_reduce", "broadcast")),
        ("size", ("40 bytes", "48 bytes")),
        ("large size", ("40 bytes", "1600000 bytes")),
        ("dtype", ("float32", "int32")),
        ("reduce operation", ("SUM", "MAX")),
        ("root", ("root 0", "root 1")),
        ("splits", ("sends 12 bytes", "expects 8")),
    ],
)
def test_when_ranks_disagree_then_all_raise_with_both_values(fresh, kind, both):
    messages = fresh.run(mismatch, kind)
    for message in messages:
        assert message is not None and "rank" in message, messages
        assert all(value in message for value in both) or "Timed out" not in message and "bytes" in message, message
    assert any(all(value in message for value in both) for message in messages), messages


def abort_one(rank, size):
    group = dist.new_group(list(range(size)))
    dist.all_reduce(torch.ones(3), group=group)
    backend = group._get_backend(torch.device("cpu"))
    if rank == 0:
        time.sleep(0.3)
        backend.abort()
        backend.abort()
        return "aborted"
    try:
        dist.all_reduce(torch.ones(3), group=group)
    except dist.DistBackendError as error:
        return str(error)


def test_abort_unblocks_all_ranks(fresh):
    messages = fresh.run(abort_one)
    assert all("aborted" in message for message in messages), messages


def leave_early(rank, size):
    group = dist.new_group(list(range(size)))
    dist.all_reduce(torch.ones(3), group=group)
    if rank == 0:
        dist.destroy_process_group(group)
        return "has left"
    try:
        dist.all_reduce(torch.ones(3), group=group)
    except dist.DistBackendError as error:
        return str(error)


def test_when_a_rank_destroys_the_group_early_then_the_others_say_so(fresh):
    messages = fresh.run(leave_early)
    assert all("has left" in message or "lost" in message for message in messages), messages


SCRIPT = """
import os, sys, torch, torch.distributed as dist
import trainyard_collective
store = dist.FileStore(sys.argv[1], 2)
dist.init_process_group("smddp", store=store, rank=int(sys.argv[2]), world_size=2)
dist.all_reduce(torch.ones(1000))
dist.all_reduce(torch.ones(1000), async_op=True)
if sys.argv[3] == "raise":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("how,code", [("return", 0), ("raise", 3)])
def test_the_interpreter_ends_without_destroying_the_group(tmp_path, how, code):
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path / "store"), str(rank), how]) for rank in range(2)
    ]
    try:
        assert [process.wait(60) for process in processes] == [code, code]
    finally:
        for process in processes:
            process.kill()


SECRET_SCRIPT = """
import sys, torch, torch.distributed as dist
from datetime import timedelta
import trainyard_collective
store = dist.FileStore(sys.argv[1], 2)
dist.init_process_group("smddp", store=store, rank=int(sys.argv[2]), world_size=2, timeout=timedelta(seconds=20))
try:
    dist.all_reduce(torch.ones(1))
except dist.DistBackendError as error:
    print(error)
    raise SystemExit(7)
"""


def test_a_process_without_the_secret_is_refused(tmp_path):
    processes = []
    for rank, secret in enumerate(("the secret", "another")):
        environment = dict(
            os.environ, TRAINYARD_COLLECTIVE_SECRET=secret, TRAINYARD_COLLECTIVE_HOST_ID=str(rank)
        )
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", SECRET_SCRIPT, str(tmp_path / "store"), str(rank)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=90)[0] for process in processes]
        assert [process.returncode for process in processes] == [7, 7], outputs
        assert "TRAINYARD_COLLECTIVE_SECRET differs" in outputs[1]
    finally:
        for process in processes:
            process.kill()
