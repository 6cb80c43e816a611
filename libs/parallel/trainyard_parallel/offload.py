"""Activations that wait for their backward in host memory.

What a checkpointed layer keeps is its input. Here the input is copied to the host (pinned, with a GPU) beside the
computation, and the device tensor is given up. In the backward a layer's request brings its own input back and starts
to bring those of the next `horizon` layers, so that copies overlap with computation and at most `horizon` + 1 inputs
are on the device.

Layers of one micro-batch form a *task*: they come back in reverse order. Tasks come back in the order in which they
were begun, as pipeline schedules run them; another order is right too, but then nothing is loaded early for it.

On a CPU the same code runs without streams: the copy is a second tensor, and the first one's memory is freed.
"""

from collections import deque
from contextlib import contextmanager, nullcontext
from weakref import WeakSet, ref

import torch
from torch.autograd.graph import saved_tensors_hooks


class Lane:
    """Copies beside the computation of a device: a stream of its own, or on CPUs nothing."""

    def __init__(self, device):
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def after(self, event):
        """Copies inside wait for `event`, or where it is None for what the device has been given so far."""
        if self.stream is None:
            yield
            return
        if event is None:
            self.stream.wait_stream(torch.cuda.current_stream())
        else:
            self.stream.wait_event(event)
        with torch.cuda.stream(self.stream):
            yield

    def keep(self, tensor):
        """The tensor's memory is not used again before the copies so far have ended."""
        if self.stream is not None:
            tensor.record_stream(self.stream)

    def event(self):
        return self.stream.record_event() if self.stream is not None else None


class Away:
    """One tensor in host memory. Belongs to the autograd graph, which asks for it in the backward."""

    def __init__(self, tensor, lane):
        self.device, self.lane, self.value, self.ready = tensor.device, lane, None, None
        with lane.after(None):
            self.host = torch.empty_like(tensor, device="cpu", pin_memory=lane.stream is not None)
            self.host.copy_(tensor.detach(), non_blocking=True)
        lane.keep(tensor)
        self.done = lane.event()

    def load(self, lane):
        """Starts to bring it back."""
        if self.value is None:
            with lane.after(self.done):
                self.value = torch.empty_like(self.host, device=self.device).copy_(self.host, non_blocking=True)
            self.ready = lane.event()

    def take(self, lane):
        """The tensor on its device; may be called again, as `retain_graph` does."""
        self.load(lane)
        value, self.value = self.value, None
        if self.ready is not None:
            current = torch.cuda.current_stream()
            current.wait_event(self.ready)
            value.record_stream(current)
        return value


class Offloader:
    """Keeps at most `horizon` tensors on the device ahead of their use."""

    def __init__(self, device, horizon):
        self.horizon = horizon
        self.out, self.back = Lane(device), Lane(device)
        # References by task; the autograd graph is what keeps tensors, so one without a backward leaves nothing behind.
        self.tasks = deque()
        self.alive = WeakSet()

    def begin_task(self):
        """What is kept from now on belongs to a new micro-batch."""
        if not self.tasks or self.tasks[-1]:
            self.tasks.append([])

    def around(self):
        """Inside, activations that are kept for the backward go to the host."""
        return saved_tensors_hooks(self.pack, self.unpack)

    def pack(self, tensor):
        if not is_activation(tensor):
            return tensor
        if not self.tasks:
            self.tasks.append([])
        away = Away(tensor, self.out)
        self.tasks[-1].append(ref(away))
        self.alive.add(away)
        return away

    def unpack(self, kept):
        if isinstance(kept, torch.Tensor):
            return kept
        value = kept.take(self.back)
        self.tasks = deque([away for away in task if away() is not None and away() is not kept] for task in self.tasks)
        while self.tasks and not self.tasks[0]:
            self.tasks.popleft()
        for away in self.next():
            away.load(self.back)
        return value

    def next(self):
        """The `horizon` tensors that are asked for next."""
        order = (away() for task in self.tasks for away in reversed(task))
        return [away for _, away in zip(range(self.horizon), order)]

    @property
    def host_bytes(self):
        """In host memory, for backwards that have not ended."""
        return sum(away.host.untyped_storage().nbytes() for away in self.alive)

    @property
    def loaded(self):
        """How many tensors are back on the device and not asked for yet."""
        return sum(away.value is not None for away in self.alive)


def is_activation(tensor):
    """A result of a differentiable operation that is no parameter or view of one.

    Masks and positions, to which no gradient flows, are shared by layers and stay.
    """
    base = tensor if tensor._base is None else tensor._base
    return type(tensor) is torch.Tensor and tensor.grad_fn is not None and not base.is_leaf


def around(offloader):
    return offloader.around() if offloader is not None else nullcontext()
