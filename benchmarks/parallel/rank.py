"""One rank of a measurement; `run.py` starts it. Writes the answer as JSON to standard output on rank 0."""

import json
import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

import trainyard_parallel  # noqa: F401  makes torch.sagemaker importable

import memory
import pipeline_bubble
from cases import CASES
from traffic import record, replay

WARM, CHECKED = 4, 3


def cpu_seconds():
    """Of the whole machine, and of this process."""
    with open("/proc/stat") as file:
        fields = [int(x) for x in file.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK"), time.process_time()


def slowest(seconds):
    value = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value.item()


def timed(step, first, count):
    """Of one step: seconds of the slowest rank, and CPU seconds of all ranks together."""
    dist.barrier()
    started, worked = time.perf_counter(), time.process_time()
    for number in range(first, first + count):
        step(number)
    elapsed, worked = time.perf_counter() - started, torch.tensor(time.process_time() - worked, dtype=torch.float64)
    dist.all_reduce(worked)
    return slowest(elapsed / count), worked.item() / count


def check_equal(ours, bare, bound=2e-4):
    """Both train the same: mean losses over ranks of the first steps agree."""
    for number in range(CHECKED):
        pair = []
        for step in (ours, bare):
            loss = step(number)
            sums = torch.tensor([loss.item(), 1.0] if loss is not None else [0.0, 0.0], dtype=torch.float64)
            dist.all_reduce(sums)
            pair.append((sums[0] / sums[1]).item())
        if abs(pair[0] - pair[1]) > bound * abs(pair[1]):
            raise SystemExit(f"step {number}: our loss is {pair[0]} but the bare part's is {pair[1]}; they do other work")


def compare(request):
    case = CASES[request["case"]]
    ours, bare = case.make({**case.shape, **request["shape"]})
    check_equal(ours, bare)
    timed(ours, 0, WARM), timed(bare, 0, WARM)
    calls = record(bare, 0)
    rounds, cores = [], os.cpu_count()
    for number in range(request["rounds"]):
        before, clock = cpu_seconds(), time.perf_counter()
        pair = {}
        # Each goes first in every second round.
        for name, step in [("ours", ours), ("bare", bare)][:: 1 if number % 2 else -1]:
            pair[name], pair[f"{name} cpu"] = timed(step, 0, request["steps"])
        after, elapsed = cpu_seconds(), time.perf_counter() - clock
        own = torch.tensor(after[1] - before[1], dtype=torch.float64)
        dist.all_reduce(own)
        pair["foreign"] = max(0.0, after[0] - before[0] - own.item()) / (elapsed * cores)
        pair["wire"] = slowest(replay(calls))
        rounds.append(pair)
    return {"rounds": rounds, "calls": len(calls), "bytes": sum(call.bytes for call in calls)}


def main():
    request = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=300))
    answer = {"compare": compare, "memory": memory.measure, "bubble": pipeline_bubble.measure}[request["do"]](request)
    if dist.get_rank() == 0:
        print(json.dumps(answer), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
