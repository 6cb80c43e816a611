"""The user's step function as something that can stop in the middle.

A pipeline schedule decides when a micro-batch's forward and backward happen, but user code calls `model(...)` and
`model.backward(loss)` in a straight line. Each micro-batch therefore runs in a thread that waits inside these calls.
Exactly one thread runs at any time: whoever resumes waits until the other stops again, so order is deterministic.
"""

import atexit
import os
import threading

import torch

current = threading.local()


class Abandoned(BaseException):
    """Unwinds a step function whose step failed elsewhere."""


class Worker:
    """A thread that runs one step function after another: starting one for each costs more than all its switches."""

    def __init__(self):
        # Plain locks that are held hand over twice as fast as semaphores.
        self.go, self.stopped, self.suspension = held(), held(), None
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            self.go.acquire()
            if self.suspension is None:
                return
            self.suspension.run()
            self.suspension = current.suspension = None
            self.stopped.release()


def held():
    lock = threading.Lock()
    lock.acquire()
    return lock


idle = []
# Threads do not survive a fork.
os.register_at_fork(after_in_child=idle.clear)


@atexit.register
def end_idle():
    """A thread that still waits when the interpreter is taken down is woken by its lock's end, and aborts the process."""
    while idle:
        worker = idle.pop()
        worker.go.release()
        worker.thread.join()


class Suspension:
    """Runs `fn()`; `state` is ("call", (args, kwargs)), ("backward", (tensors, grads)), ("values", None) or ("done", result)."""

    def __init__(self, fn):
        self.fn = fn
        self.state = None
        self.error = None
        self.autocast = None
        # Whether the next backward needs no stop.
        self.passes_backward = False
        self._answer = None
        self._grad = torch.is_grad_enabled()
        self._worker = idle.pop() if idle else Worker()
        self._worker.suspension = self
        self._go()

    def run(self):
        """The whole function, in a worker's thread."""
        current.suspension = self
        torch.set_grad_enabled(self._grad)
        try:
            self.state = ("done", self.fn())
        except BaseException as error:  # handed to whoever resumed
            self.state, self.error = ("failed", None), error

    def _go(self):
        self._worker.go.release()
        self._worker.stopped.acquire()
        if self.state[0] in ("done", "failed"):
            idle.append(self._worker)
            self._worker = None
        if self.error is not None and not isinstance(self.error, Abandoned):
            raise self.error

    def suspend(self, kind, value):
        """Called by the step function's thread: stops here until resumed; returns the answer."""
        if kind == "backward" and self.passes_backward:
            self.passes_backward = False
            return None
        device = state_device()
        self.autocast = (
            (device, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
        )
        self.state = (kind, value)
        self._worker.stopped.release()
        self._worker.go.acquire()
        # Nothing is kept: who still has an answer afterwards is asked by weak references (distant.py).
        answer, self._answer = self._answer, None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def resume(self, answer=None):
        self._answer = answer
        self._go()

    def abandon(self):
        if self.state[0] not in ("done", "failed"):
            self.resume(Abandoned())


def state_device():
    return "cuda" if torch.cuda.is_available() else "cpu"
