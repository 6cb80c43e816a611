"""Real ranks for tests: processes that stay up and run functions on request.

A World is N processes with one process group over all of them. `run(fn, …)`
calls `fn(rank, size, …)` in every rank and returns the results by rank; an
exception in any rank fails the test with that rank's traceback. The processes
are forked from a server that has imported torch, so a World costs tenths of a
second, and they are killed at the end whatever happened.
"""

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import traceback
from datetime import timedelta

SHUTDOWN_SECONDS = 20

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["preload"])


class RankFailed(AssertionError):
    """A rank raised; the message holds its traceback."""


class RankDied(AssertionError):
    """A rank's process ended before it answered."""


def serve(connection, rank, size, store_path, environment, timeout_seconds, backend, namespace):
    """The life of a rank: join, then answer requests until told to stop."""
    os.environ.update(environment)
    if namespace is not None:
        enter_namespace(namespace)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    import trainyard_collective  # noqa: F401

    store = dist.FileStore(store_path, size)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_seconds)
    )
    connection.send(("ready", os.getpid()))
    while True:
        try:
            request = connection.recv()
        except EOFError:
            os._exit(1)
        if request is None:
            break
        fn, args = request
        try:
            answer = ("ok", fn(rank, size, *args))
        except BaseException as error:  # also SystemExit: the test shall see it
            answer = ("error", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        connection.send(answer)
    if dist.is_initialized():
        dist.destroy_process_group()
    connection.send(("ok", None))


def enter_namespace(name):
    """Moves this process into a network namespace made by `ip netns add`."""
    import ctypes

    with open(f"/run/netns/{name}") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns failed")


class World:
    def __init__(self, size, hosts=None, environment=None, timeout_seconds=60, backend="smddp", namespaces=None):
        self.size = size
        self.folder = tempfile.mkdtemp(prefix="trainyard-ranks-")
        self.connections = []
        self.processes = []
        for rank in range(size):
            variables = dict(environment or {})
            if hosts is not None:
                variables["TRAINYARD_COLLECTIVE_HOST_ID"] = f"host-{hosts[rank]}"
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve,
                args=(
                    theirs,
                    rank,
                    size,
                    os.path.join(self.folder, "store"),
                    variables,
                    timeout_seconds,
                    backend,
                    namespaces[rank] if namespaces else None,
                ),
                daemon=False,
            )
            process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)
        try:
            self.pids = [answer for _, answer in map(self._receive, range(size))]
        except BaseException:
            self.kill()
            raise

    def _receive(self, rank, seconds=120):
        connection, process = self.connections[rank], self.processes[rank]
        deadline = time.monotonic() + seconds
        while not connection.poll(0.2):
            if not process.is_alive() and not connection.poll(0):
                raise RankDied(f"rank {rank} ended with code {process.exitcode}")
            if time.monotonic() > deadline:
                raise RankFailed(f"rank {rank} has not answered for {seconds} s")
        try:
            return connection.recv()
        except EOFError:
            process.join(5)
            raise RankDied(f"rank {rank} ended with code {process.exitcode}") from None

    def start(self, fn, *args, ranks=None):
        """Asks ranks (default: all) to run fn, without waiting."""
        for rank in range(self.size) if ranks is None else ranks:
            self.connections[rank].send((fn, args))

    def answer(self, rank, seconds=120):
        """Returns ("ok", result) or ("error", text)."""
        return self._receive(rank, seconds)

    def run(self, fn, *args, ranks=None, seconds=120):
        ranks = list(range(self.size)) if ranks is None else ranks
        self.start(fn, *args, ranks=ranks)
        results, errors = [], []
        for rank in ranks:
            kind, value = self.answer(rank, seconds)
            if kind == "error":
                errors.append(f"rank {rank}: {value}")
            results.append(value)
        if errors:
            raise RankFailed("\n".join(errors))
        return results

    def signal(self, rank, number):
        os.kill(self.pids[rank], number)

    def close(self):
        """Ends all ranks in order; kills those that do not end."""
        try:
            for connection in self.connections:
                try:
                    connection.send(None)
                except OSError:
                    pass
            deadline = time.monotonic() + SHUTDOWN_SECONDS
            for process in self.processes:
                process.join(max(0.1, deadline - time.monotonic()))
            stuck = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
            assert not stuck, f"ranks {stuck} did not end within {SHUTDOWN_SECONDS} s"
        finally:
            self.kill()

    def kill(self):
        for rank, process in enumerate(self.processes):
            if process.is_alive():
                try:
                    os.kill(process.pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
                process.kill()
            process.join()
            self.connections[rank].close()
        shutil.rmtree(self.folder, ignore_errors=True)
