"""One rank of one library: connects to the driver and measures on request.

    rank.py LIBRARY DRIVER_SOCKET

LIBRARY is smddp, smddp-allocated, gloo, sockets, mpi or mpi-window (the last two run under mpirun, with mpi4py).
Between requests the rank blocks in a socket read, so that idle libraries cost nothing while another one is measured.
"""

import json
import os
import select
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

    def close(self):
        self.dist.destroy_process_group()


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

    def close(self):
        pass


class MpiWindow(MpiLibrary):
    """The control for allocated tensors: what MPI's users can do by hand where all arrays lie in a shared window.

    Every rank works in the others' arrays with numpy; the library only gives the memory and the barriers.
    """

    def __init__(self, name):
        super().__init__(name)
        self.windows = []
        self.sums = np.empty(16384, np.float32)
        self.all = {}  # address of an array → the same array of every rank

    def array(self, values):
        if len(self.windows) == 2:  # those of the measurement before
            self.barrier()
            self.all.clear()
            for window in self.windows:
                window.Free()
            self.windows.clear()
        window = self.mpi.Win.Allocate_shared(values.nbytes, 1, comm=self.world)
        self.windows.append(window)
        arrays = [np.frombuffer(window.Shared_query(rank)[0], np.float32) for rank in range(self.size)]
        mine = arrays[self.rank]
        mine[:] = values
        self.all[mine.ctypes.data] = arrays
        return mine

    def call(self, op, whole, part):
        wholes, parts = self.all[whole.ctypes.data], self.all[part.ctypes.data]
        n, rank = self.size, self.rank
        each = len(whole) // n
        own = slice(rank * each, (rank + 1) * each if rank < n - 1 else len(whole))
        self.barrier()
        if op in ("allreduce", "reducescatter"):
            out = whole[own] if op == "allreduce" else part
            own = own if op == "allreduce" else slice(rank * each, (rank + 1) * each)
            # Piece by piece, so that sums stay in the cache.
            for at in range(own.start, own.stop, 16384):
                piece = slice(at, min(at + 16384, own.stop))
                target = out[at - own.start : piece.stop - own.start]
                if op == "allreduce" and n > 2:
                    # The target is also one of the summands.
                    target = self.sums[: len(target)]
                np.add(wholes[0][piece], wholes[1][piece], out=target)
                for other in wholes[2:]:
                    np.add(target, other[piece], out=target)
                for other in wholes if op == "allreduce" else ():
                    if other is not whole or n > 2:
                        other[piece] = target
        elif op == "allgather":
            for other in range(n):
                whole[other * each : (other + 1) * each] = parts[other]
        elif rank != 0:
            whole[:] = wholes[0]
        self.barrier()


class Sockets:
    """The limit between two hosts: as many bytes as a host must send, over one bare TCP connection per rank.

    Rank g of one host exchanges with rank g of the other; nothing is reduced, nothing goes on inside a host.
    """

    def __init__(self, _):
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        seats = self.size // 2
        path = f"{os.environ['BENCHMARK_STORE']}-{self.rank % seats}"
        if self.rank < seats:
            server = socket.create_server((os.environ["BENCHMARK_ADDRESS"], 0))
            with open(f"{path}.part", "w") as file:
                file.write(f"{server.getsockname()[1]}")
            os.rename(f"{path}.part", path)
            self.link = server.accept()[0]
        else:
            deadline = time.monotonic() + 60
            while not os.path.exists(path):
                if time.monotonic() > deadline:
                    raise SystemExit("the other host's rank did not start")
                time.sleep(0.01)
            self.link = socket.create_connection((os.environ["BENCHMARK_ADDRESS"], int(open(path).read())))
        self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.link.setblocking(False)

    def array(self, values):
        return values

    def numpy(self, array):
        return array

    def barrier(self):
        self.exchange(memoryview(b"x"), memoryview(bytearray(1)))

    def call(self, op, whole, part):
        # What a host must send (data-parallel theory, M = 2), cut over its ranks.
        total = whole.nbytes if op in ("allreduce", "broadcast") else whole.nbytes // 2
        mine = total // (self.size // 2)
        if not hasattr(self, "incoming") or len(self.incoming) < mine:
            self.incoming = memoryview(bytearray(mine))
        outgoing = memoryview(whole).cast("B")[:mine]
        if op != "broadcast":
            self.exchange(outgoing, self.incoming[:mine])
        elif self.rank < self.size // 2:
            self.exchange(outgoing, self.incoming[:1])
        else:
            self.exchange(outgoing[:1], self.incoming[:mine])

    def exchange(self, outgoing, incoming):
        poll = select.poll()
        while outgoing or incoming:
            poll.register(self.link, (select.POLLOUT if outgoing else 0) | (select.POLLIN if incoming else 0))
            for _, events in poll.poll():
                if outgoing and events & select.POLLOUT:
                    outgoing = outgoing[self.link.send(outgoing) :]
                if incoming and events & select.POLLIN:
                    n = self.link.recv_into(incoming)
                    if n == 0:
                        raise SystemExit("the other host's rank ended")
                    incoming = incoming[n:]

    def close(self):
        self.link.close()


LIBRARIES = {"mpi": MpiLibrary, "mpi-window": MpiWindow, "sockets": Sockets}


def check(library, op, count):
    """Small integers: every library must give exactly these sums."""
    if isinstance(library, Sockets):
        return
    rank, size = library.rank, library.size
    base = (np.arange(count) % 13).astype(np.float32)
    each = count // size
    whole, part = library.array(base + rank), library.array(np.full(each, rank, np.float32))
    library.barrier()
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
    library = LIBRARIES.get(name, TorchLibrary)(name)
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
    library.close()


main()
