"""How this process learns its rank and meets the others, whatever launched it."""

import atexit
import os
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from trainyard_parallel.errors import SMPConfigError

# Names of (rank, size, local rank, local size), by launcher; the first complete pair of rank and size wins.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
)
# SageMaker's PyTorch toolkit meets on this port.
PORT = 7777
TIMEOUT_SECONDS = "TRAINYARD_PARALLEL_TIMEOUT_SECONDS"
BACKEND = "TRAINYARD_PARALLEL_BACKEND"
# At the end of the process, for threads that have work left; they need microseconds when they get a processor.
SETTLE_SECONDS, LOOK_SECONDS = 5, 0.01


@dataclass(frozen=True)
class Process:
    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def device(self):
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")


def discover(environ=os.environ):
    for rank, size, local_rank, local_size in LAUNCHERS:
        if rank in environ and size in environ:
            return Process(
                int(environ[rank]),
                int(environ[size]),
                int(environ.get(local_rank, 0)),
                int(environ.get(local_size, environ[size])),
            )
    return Process(0, 1, 0, 1)


def longest_wait():
    """How long a rank waits for a peer before it raises. Groups do not inherit it: pass it to each."""
    return timedelta(seconds=float(os.environ.get(TIMEOUT_SECONDS, 1800)))


def register(backend):
    """Makes the backend of Trainyard's own collectives known to torch.distributed where it is asked for."""
    if "smddp" not in backend:
        return
    try:
        import trainyard_collective  # noqa: F401
    except ImportError as error:
        raise SMPConfigError(
            f"{BACKEND} is {backend!r}, which is in the package trainyard-collective: {error}; install it, or name another backend"
        ) from error


def join(port=None):
    """Joins (or adopts) the default process group; returns the Process. Blocks until all ranks call it.

    `TRAINYARD_PARALLEL_BACKEND` names the torch.distributed backend (default: nccl with a GPU, else gloo);
    `TRAINYARD_PARALLEL_TIMEOUT_SECONDS` bounds every wait for a peer (default 1800).
    """
    process = discover()
    atexit.unregister(settle)
    atexit.register(settle)
    if dist.is_initialized():
        return Process(dist.get_rank(), dist.get_world_size(), process.local_rank, process.local_size)
    backend = os.environ.get(BACKEND) or ("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    address = os.environ.get("MASTER_ADDR") or os.environ.get("SM_MASTER_ADDR") or "127.0.0.1"
    port = os.environ.get("MASTER_PORT") or port or PORT
    timeout = longest_wait()
    register(backend)
    if process.device.type == "cuda":
        torch.cuda.set_device(process.device)
    if process.size == 1 and "MASTER_PORT" not in os.environ:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    else:
        dist.init_process_group(
            backend, init_method=f"tcp://{address}:{port}", rank=process.rank, world_size=process.size, timeout=timeout
        )
    return process


def settle():
    """Lets the threads of the process groups come to rest before the interpreter is taken down.

    Gloo's thread lets go of a collective's tensors after whoever waited for the collective was told of its end, and needs
    the interpreter for it. A thread that asks for an interpreter that is being taken down is ended by force, and this
    aborts the process ("terminate called without an active exception"), although all went well.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    looks = 0
    # One that was just kept from the interpreter by this very look sleeps too, but not at the next look.
    while looks < 2 and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        looks = 0 if foreign_thread_runs() else looks + 1


def foreign_thread_runs():
    """Whether a thread that Python did not start has or wants a processor; False where that cannot be read (no /proc)."""
    own = {thread.native_id for thread in threading.enumerate()}
    try:
        threads = [name for name in os.listdir("/proc/self/task") if int(name) not in own]
    except OSError:
        return False
    for name in threads:
        try:
            with open(f"/proc/self/task/{name}/stat", "rb") as file:
                if file.read().rpartition(b") ")[2][:1] in b"RD":
                    return True
        except OSError:
            pass  # it has ended
    return False
