"""Gradients averaged over ranks that hold the same parameter, in flat buckets."""

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from trainyard_parallel.errors import SMPRuntimeError


class Bucket:
    """What a communication hook gets: the interface of torch.distributed.GradBucket."""

    def __init__(self, parameters, index=0, is_last=True):
        self._parameters, self._index, self._is_last = parameters, index, is_last
        self._sizes = [local(parameter).numel() for parameter in parameters]
        self.set_buffer(torch.cat([flat_gradient(parameter) for parameter in parameters]))

    def index(self):
        return self._index

    def is_last(self):
        return self._is_last

    def buffer(self):
        return self._buffer

    def set_buffer(self, buffer):
        self._buffer = buffer

    def parameters(self):
        return self._parameters

    def gradients(self):
        return [part.view_as(local(p)) for part, p in zip(self._buffer.split(self._sizes), self._parameters)]

    # ---- the way of one bucket ----

    def start(self, group, divisor, hook=None):
        """Begins the exchange; `finish` ends it."""
        self._hook, self._divisor, self._early = hook, divisor, False
        if hook is not None:
            self._work = hook(self)
            return
        # The sum of FP16 gradients may overflow where their mean does not.
        self._early = self._buffer.dtype == torch.float16
        if self._early:
            self._buffer /= divisor
        self._work = dist.all_reduce(self._buffer, group=group, async_op=True)

    def finish(self, used):
        """Waits and writes gradients of the parameters in `used`."""
        result = self._work.wait()
        if self._hook is not None:
            value = result[0] if isinstance(result, (list, tuple)) else result
            self._buffer = value.view(-1)
        elif not self._early:
            self._buffer /= self._divisor
        for parameter, gradient in zip(self._parameters, self.gradients()):
            if parameter in used:
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                local(parameter.grad).copy_(gradient)


def reduce_gradients(parameters, group, divisor, bucket_bytes=25 * 2**20, hook=None):
    """Sums each parameter's gradient over the group and divides by `divisor`, in place. Every member calls it.

    A parameter without gradient counts as zero where another rank has one, and keeps None where none has. Summation is
    in the gradient's own dtype, of a sharded gradient the own shard. One small collective tells which gradients exist,
    then one per bucket, or `hook(bucket)` instead, whose future gives the mean.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if not parameters:
        return
    if dist.get_world_size(group) == 1 and hook is None:
        if divisor != 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(divisor)
        return
    used = used_anywhere(parameters, group)
    parts = list(buckets([parameter for parameter in parameters if parameter in used], bucket_bytes))
    for index, part in enumerate(parts):
        bucket = Bucket(part, index, index == len(parts) - 1)
        bucket.start(group, divisor, hook)
        bucket.finish(used)


def used_anywhere(parameters, group):
    """Those that have a gradient on any member; every member calls it."""
    exists = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    dist.all_reduce(exists, op=dist.ReduceOp.MAX, group=group)
    return {parameter for parameter, there in zip(parameters, exists.tolist()) if there}


class Overlap:
    """Exchanges gradients during the backward: each bucket as soon as its parameters have all that they will get.

    Buckets go in one fixed order, from the model's end to its start, so all members issue the same collectives. At most
    `IN_FLIGHT` buffers exist at a time.
    """

    IN_FLIGHT = 2

    def __init__(self, parameters, group, bucket_bytes, hook=None):
        self.parameters, self.group, self.hook = parameters, group, hook
        self.counts, self.ahead = dict.fromkeys(parameters, 0), 0
        self.parts = list(buckets(list(reversed(parameters)), bucket_bytes))
        self.handles = [p.register_post_accumulate_grad_hook(self.count) for p in parameters]
        self.expected, self.started, self.flying = None, 0, []

    def begin(self, backwards, divisor):
        """The backwards that follow, so many for each parameter, complete an accumulation."""
        self.divisor = divisor
        self.expected, self.counts, self.started, self.flying = backwards, dict.fromkeys(self.parameters, 0), 0, []

    def count(self, parameter):
        if self.expected is None:
            return
        self.counts[parameter] += 1
        if self.counts[parameter] > self.expected:
            raise SMPRuntimeError(
                "a parameter got a gradient more than once in one micro-batch, after its exchange may have begun; call "
                "model.backward once for each micro-batch, or wrap the model with overlapping_allreduce=False"
            )
        while self.started < len(self.parts) and all(self.counts[p] >= self.expected for p in self.parts[self.started]):
            if len(self.flying) == self.IN_FLIGHT:
                # All of its parameters have gradients here, so on every member they will.
                index, bucket = self.flying.pop(0)
                bucket.finish(set(self.parts[index]))
            self.start()

    def start(self):
        bucket = Bucket(self.parts[self.started], self.started, self.started == len(self.parts) - 1)
        bucket.start(self.group, self.divisor, self.hook)
        self.flying.append((self.started, bucket))
        self.started += 1

    def finish(self):
        """Every member calls it after the last backward; `ahead` is then how many buckets had begun before."""
        self.ahead = self.started
        while self.started < len(self.parts):
            self.start()
        used = used_anywhere(self.parameters, self.group)
        for _, bucket in self.flying:
            bucket.finish(used)
        self.expected, self.flying = None, []

    def remove(self):
        for handle in self.handles:
            handle.remove()


def flat_gradient(parameter):
    own = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    return local(own).reshape(-1)


def local(tensor):
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def buckets(parameters, limit):
    """Runs of one dtype whose gradients together stay below `limit` bytes (a larger parameter is its own bucket)."""
    current, size = [], 0
    for parameter in parameters:
        own = parameter.numel() * parameter.element_size()
        if current and (size + own > limit or current[0].dtype != parameter.dtype):
            yield current
            current, size = [], 0
        current.append(parameter)
        size += own
    if current:
        yield current
