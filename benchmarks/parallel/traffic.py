"""What a step sends: its collectives and messages are recorded once and can be repeated without the computation."""

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

KINDS = ("all_gather", "allgather", "reduce_scatter", "all_reduce", "allreduce", "broadcast", "all_to_all", "alltoall", "send", "recv")
# Renamed in torch 2.13.
gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass
class Call:
    kind: str
    bytes: int
    peer: int | None


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("c10d", "_c10d_functional"):
            name = func._opname.strip("_")
            kind = next((kind for kind in KINDS if name.startswith(kind)), None)
            if kind is not None:
                kind = {"allgather": "all_gather", "allreduce": "all_reduce", "alltoall": "all_to_all"}.get(kind, kind)
                self.calls.append(Call(kind, moved(kind, args), args[2] if kind in ("send", "recv") else None))
        return func(*args, **(kwargs or {}))


def moved(kind, args):
    """Bytes of the largest tensor or list of tensors among the arguments: the whole of what is gathered or scattered."""

    def size(value):
        if isinstance(value, torch.Tensor):
            return value.numel() * value.element_size()
        return sum(map(size, value)) if isinstance(value, (list, tuple)) else 0

    largest = max(map(size, args))
    functional = isinstance(args[0], torch.Tensor) and kind == "all_gather" and len(args) == 3
    return largest * (args[1] if functional else 1)


def record(step, number):
    """The calls of one step of this rank; every rank must do it together."""
    recorder = Recorder()
    with recorder:
        step(number)
    return recorder.calls


def replay(calls):
    """Seconds that the recorded calls take by themselves, one after the other; messages between two ranks overlap."""
    ranks = dist.get_world_size()
    buffers = [torch.zeros(max(ranks, call.bytes // 4 // ranks * ranks)) for call in calls]
    parts = [buffer[: buffer.numel() // ranks].clone() for buffer in buffers]
    dist.barrier()
    started = time.perf_counter()
    waiting = []
    for call, whole, part in zip(calls, buffers, parts):
        match call.kind:
            case "all_gather":
                gather(whole, part)
            case "reduce_scatter":
                scatter(part, whole)
            case "all_reduce":
                dist.all_reduce(whole)
            case "broadcast":
                dist.broadcast(whole, 0)
            case "all_to_all":
                dist.all_to_all_single(torch.empty_like(whole), whole)
            case "send":
                waiting.append(dist.isend(whole, call.peer))
            case "recv":
                waiting.append(dist.irecv(whole, call.peer))
    for work in waiting:
        work.wait()
    return time.perf_counter() - started
