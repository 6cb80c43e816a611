"""A hang can be told from the records of all ranks, by torch's own analyser."""

import os
import pickle
import signal
import subprocess
import sys
import time

import torch
import torch.distributed as dist

from ranks import World

SECONDS = 20
# What the analyser of this version of torch takes.
PREFIX = "gloo:" if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13) else "nccl:"


def record(rank, size, prefix):
    import trainyard_collective

    dist.all_reduce(torch.ones(5))
    dist.broadcast(torch.ones(3, 2), 0)
    return trainyard_collective.dump_flight_record(prefix, rank)


def hang(rank, size):
    dist.all_reduce(torch.ones(5))
    if rank != size - 1:
        dist.all_reduce(torch.ones(7))
    return "done"


def finish(rank, size):
    dist.all_reduce(torch.ones(7))


def until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def analyse(folder):
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.flight_recorder.fr_trace", "--prefix", "trace_", str(folder)],
        capture_output=True,
        text=True,
    )


def test_the_record_has_torchs_format(tmp_path):
    world = World(2)
    try:
        paths = world.run(record, str(tmp_path / "trace_"))
        with open(paths[1], "rb") as file:
            dump = pickle.load(file)
        entries = dump["entries"]
        assert [entry["profiling_name"] for entry in entries] == [PREFIX + "all_reduce", PREFIX + "broadcast"]
        assert entries[0]["input_sizes"] == [[5]] and entries[1]["output_dtypes"] == ["Float"]
        assert all(entry["state"] == "completed" for entry in entries)
        assert dump["pg_config"]["0"]["ranks"] == "[0, 1]"
        report = analyse(tmp_path)
        assert report.returncode == 0, report.stdout + report.stderr
        world.close()
    finally:
        world.kill()


def test_a_signal_dumps_the_record_of_a_hanging_rank(tmp_path):
    world = World(
        2,
        environment={
            "TRAINYARD_COLLECTIVE_DUMP_SIGNAL": "SIGUSR2",
            "TRAINYARD_COLLECTIVE_DUMP_FILE": str(tmp_path / "trace_"),
        },
    )
    try:
        world.start(hang)
        assert world.answer(1) == ("ok", "done")
        paths = [tmp_path / f"trace_{rank}" for rank in range(2)]

        def dumped():
            for rank in range(2):
                world.signal(rank, signal.SIGUSR2)
            time.sleep(0.2)
            if not all(os.path.exists(path) for path in paths):
                return False
            with open(paths[0], "rb") as file:
                states = [entry["state"] for entry in pickle.load(file)["entries"]]
            # Its second operation is on the record before it starts.
            return states == ["completed", "started"]

        until(dumped)
        report = analyse(tmp_path)
        assert "rank" in (report.stdout + report.stderr).lower()
        world.run(finish, ranks=[1])
        assert world.answer(0) == ("ok", "done")
        world.close()
    finally:
        world.kill()
