"""Real ranks for tests: processes that stay up and run functions on request.

A World is N processes with one process group, of Gloo or of the backend that TRAINYARD_PARALLEL_BACKEND would name. `run(fn, …)` calls `fn(rank, …)` in every rank and returns the
results by rank; an exception in any rank fails the test with that rank's traceback and ends the world. Ranks are forked
from a server that has imported torch, and are killed at the end whatever happened.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from datetime import timedelta

PEER_SECONDS = 60
ANSWER_SECONDS = 150

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["preload"])


class RankFailed(AssertionError):
    """A rank raised, died or did not answer; the message holds what it said."""


def serve(connection, rank, size, folder, peer_seconds, environment):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size))
    os.environ["TRAINYARD_PARALLEL_TIMEOUT_SECONDS"] = str(peer_seconds)
    os.environ.pop("SM_HP_MP_PARAMETERS", None)
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if environment:
        from trainyard_parallel import process

        process.join()
    else:
        store = dist.FileStore(os.path.join(folder, "store"), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=peer_seconds))
    while True:
        try:
            request = connection.recv()
        except EOFError:
            os._exit(1)
        if request is None:
            break
        fn, args = request
        try:
            answer = ("ok", fn(rank, *args))
        except BaseException as error:
            answer = ("error", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        connection.send(answer)
    dist.destroy_process_group()


class World:
    def __init__(self, size, peer_seconds=PEER_SECONDS, environment=None):
        self.size = size
        self.folder = tempfile.mkdtemp(prefix="trainyard-parallel-")
        self.links, self.processes = [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, rank, size, self.folder, peer_seconds, environment or {}), daemon=True)
            process.start()
            theirs.close()
            self.links.append(ours)
            self.processes.append(process)

    def run(self, fn, *args):
        for link in self.links:
            link.send((fn, args))
        answers = [self._answer(rank) for rank in range(self.size)]
        errors = [f"rank {rank}: {value}" for rank, (kind, value) in enumerate(answers) if kind == "error"]
        if errors:
            # Collectives of the ranks may be out of step now.
            self.kill()
            raise RankFailed("\n".join(errors))
        return [value for _, value in answers]

    def _answer(self, rank):
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self.links[rank].poll(0.2):
            if not self.processes[rank].is_alive() and not self.links[rank].poll(0):
                return "error", f"ended with code {self.processes[rank].exitcode}"
            if time.monotonic() > deadline:
                return "error", f"has not answered for {ANSWER_SECONDS} s"
        try:
            return self.links[rank].recv()
        except EOFError:
            return "error", "ended without an answer"

    @property
    def is_alive(self):
        return all(process.is_alive() for process in self.processes)

    def close(self):
        for link in self.links:
            try:
                link.send(None)
            except OSError:
                pass
        for process in self.processes:
            process.join(10)
        self.kill()

    def kill(self):
        for process in self.processes:
            process.kill()
            process.join()
        shutil.rmtree(self.folder, ignore_errors=True)
