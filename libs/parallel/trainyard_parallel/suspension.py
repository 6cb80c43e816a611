"""The user's step function as something that can stop in the middle.

A pipeline schedule decides when a micro-batch's forward and backward happen, but user code calls `model(...)` and
`model.backward(loss)` in a straight line. Each micro-batch therefore runs in a thread that waits inside these calls.
Exactly one thread runs at any time: whoever resumes waits until the other stops again, so order is deterministic.
"""

import threading

import torch

current = threading.local()


class Abandoned(BaseException):
    """Unwinds a step function whose step failed elsewhere."""


class Suspension:
    """Runs `fn()`; `state` is ("call", (args, kwargs)), ("backward", (tensors, grads)) or ("done", result)."""

    def __init__(self, fn):
        self.fn = fn
        self.state = None
        self.error = None
        self.autocast = None
        self._answer = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._grad = torch.is_grad_enabled()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        self._wait()

    def _main(self):
        current.suspension = self
        torch.set_grad_enabled(self._grad)
        try:
            self.state = ("done", self.fn())
        except BaseException as error:  # handed to whoever resumed
            self.state, self.error = ("failed", None), error
        self._stopped.release()

    def _wait(self):
        self._stopped.acquire()
        if self.state[0] in ("done", "failed"):
            self._thread.join()
        if self.error is not None and not isinstance(self.error, Abandoned):
            raise self.error

    def suspend(self, kind, value):
        """Called by the step function's thread: stops here until resumed; returns the answer."""
        device = state_device()
        self.autocast = (
            (device, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
        )
        self.state = (kind, value)
        self._stopped.release()
        self._go.acquire()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def resume(self, answer=None):
        self._answer = answer
        self._go.release()
        self._wait()

    def abandon(self):
        if self.state[0] not in ("done", "failed"):
            self.resume(Abandoned())


def state_device():
    return "cuda" if torch.cuda.is_available() else "cpu"
