"""One rank of one library: connects to the driver and measures on request.

    rank.py LIBRARY DRIVER_PORT_OR_PATH

LIBRARY is smddp, smddp-allocated, gloo, or mpi (run under mpirun, mpi4py).
Between requests the rank blocks in a socket read, so that idle libraries cost
nothing while another one is measured.
"""

import json
import os
import socket
import sys
import time

import numpy as np


class TorchLibrary:
    def __init__(self, name):
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        import trainyard_collective  # noqa: F401

        self.torch, self.dist = torch, dist
        self.allocated = name == "smddp-allocated"
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = dist.FileStore(os.environ["BENCHMARK_STORE"], self.size)
        dist.init_process_group(
            "gloo" if name == "gloo" else "smddp", store=store, rank=self.rank, world_size=self.size
        )
        self.backend = dist.group.WORLD._get_backend(torch.device("cpu"))

    def array(self, values):
        tensor = self.torch.from_numpy(values)
        if not self.allocated:
            return tensor
        place = self.backend.allocate_tensor(len(values), dtype=self.torch.float32, device=self.torch.device("cpu"))
        return place.copy_(tensor)

    def numpy(self, array):
        return array.numpy()

    def barrier(self):
        self.dist.barrier()

    def call(self, op, whole, part):
        if op == "allreduce":
            self.dist.all_reduce(whole)
        elif op == "allgather":
            self.dist.all_gather_into_tensor(whole, part)
        elif op == "reducescatter":
            self.dist.reduce_scatter_tensor(part, whole)
        else:
            self.dist.broadcast(whole, 0)


class MpiLibrary:
    def __init__(self, _):
        from mpi4py import MPI

        self.mpi = MPI
        self.world = MPI.COMM_WORLD
        self.rank, self.size = self.world.rank, self.world.size

    def array(self, values):
        return values

    def numpy(self, array):
        return array

    def barrier(self):
        self.world.Barrier()

    def call(self, op, whole, part):
        if op == "allreduce":
            self.world.Allreduce(self.mpi.IN_PLACE, whole)
        elif op == "allgather":
            self.world.Allgather(part, whole)
        elif op == "reducescatter":
            self.world.Reduce_scatter_block(whole, part)
        else:
            self.world.Bcast(whole, 0)


def check(library, op, count):
    """Small integers: every library must give exactly these sums."""
    rank, size = library.rank, library.size
    base = (np.arange(count) % 13).astype(np.float32)
    each = count // size
    whole, part = library.array(base + rank), library.array(np.full(each, rank, np.float32))
    library.call(op, whole, part)
    total = base * size + sum(range(size))
    if op == "allreduce":
        right = np.array_equal(library.numpy(whole), total)
    elif op == "allgather":
        right = np.array_equal(library.numpy(whole), np.repeat(np.arange(size, dtype=np.float32), each))
    elif op == "reducescatter":
        right = np.array_equal(library.numpy(part), total[rank * each : (rank + 1) * each])
    else:
        right = np.array_equal(library.numpy(whole), base)
    if not right:
        raise SystemExit(f"{sys.argv[1]} gives wrong results for {op} of {count} elements")


def measure(library, op, count, calls):
    """Seconds per call, the buffers being warm."""
    values = np.random.default_rng(library.rank).random(count, dtype=np.float32)
    whole, part = library.array(values), library.array(values[: count // library.size].copy())
    # Keeps sums from growing over many calls: their speed could change.
    if op == "allreduce":
        library.numpy(whole)[:] = 0
    library.call(op, whole, part)
    library.barrier()
    started = time.perf_counter()
    for _ in range(calls):
        library.call(op, whole, part)
    return (time.perf_counter() - started) / calls


def main():
    name, port = sys.argv[1:3]
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(port)
    library = (MpiLibrary if name == "mpi" else TorchLibrary)(name)
    stream = connection.makefile("rw")
    stream.write(json.dumps({"rank": library.rank, "pid": os.getpid()}) + "\n")
    stream.flush()
    for line in stream:
        request = json.loads(line)
        if request["do"] == "end":
            break
        count = request["bytes"] // 4
        if request["do"] == "check":
            check(library, request["op"], count)
            answer = 0
        else:
            answer = measure(library, request["op"], count, request["calls"])
        stream.write(json.dumps(answer) + "\n")
        stream.flush()
    if name != "mpi":
        library.dist.destroy_process_group()


main()
