"""Uneven inputs: ranks that have no more batches take part in the others' exchanges with zeros.

Each step inside `model.join()` begins with a word of every data-parallel rank whether it trains or has ended. The
replica with the lowest rank that still trains gives buffers, and at the end the parameters, to all.

https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html (join)
"""

from contextlib import contextmanager

import torch
import torch.distributed as dist

from trainyard_parallel import shard
from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.state import state


class Joining:
    def __init__(self, model):
        self.model = model
        self.is_on = False
        self.first = None

    @contextmanager
    def around(self, divide_by_initial_world_size, enable):
        """Pipeline stages and tensor-parallel ranks of one replica must have equal numbers of steps.

        With `divide_by_initial_world_size` false a gradient is the mean over the ranks that still train.
        """
        if not enable:
            yield
            return
        if state.cfg.shard_optimizer_state or shard.is_on():
            raise SMPRuntimeError(
                "join does not go with shard_optimizer_state or sharded_data_parallel_degree > 1, whose optimizer steps need "
                "every rank; give every rank the same number of batches (drop_last=True)"
            )
        self.is_on, self.by_initial = True, divide_by_initial_world_size
        try:
            yield
            last = self.first
            while self.ask(trains=False):
                last = self.first
                self.shadow()
            if last is not None:
                self.share(last)
        finally:
            self.is_on, self.first = False, None

    def step(self):
        """At the start of every step."""
        if self.is_on:
            self.ask(trains=True)

    def ask(self, trains):
        """How many ranks of the group still train; `first` is the lowest place in the group among them."""
        size = state.size("rdp")
        votes = torch.zeros(size, dtype=torch.int32, device=state.process.device)
        votes[state.rank("rdp")] = trains
        dist.all_reduce(votes, group=state.group("rdp"))
        self.count = int(votes.sum())
        self.first = int(votes.argmax()) if self.count else None
        return self.count

    def shadow(self):
        """The exchanges of one step of others."""
        model = self.model
        model.sync_buffers()
        for parameter in model.local_parameters():
            parameter.grad = None
        model._before_backwards(1)
        model._after_backwards()
        for parameter in model.local_parameters():
            parameter.grad = None

    def divisor(self, size):
        """What a sum of `size` ranks' gradients is divided by."""
        return size if not self.is_on or self.by_initial else size * self.count / state.size("rdp")

    def source(self, kind):
        """The global rank whose buffers are the ones to have."""
        return state.ranks(kind)[self.first if self.is_on and self.first is not None else 0]

    @torch.no_grad()
    def share(self, place):
        for tensor in [*self.model.local_parameters(), *self.model.module.buffers()]:
            dist.broadcast(tensor.data, state.ranks("rdp")[place], group=state.group("rdp"))
        if state.optimizer is not None:
            state.optimizer.follow_model()
