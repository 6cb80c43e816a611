"""Idle time of a pipeline against theory: with p equal stages, m micro-batches of time t each take (m + p − 1)·t.

t is the slope of the step's time over m, so the idle part of a step of m micro-batches is 1 − m·t / T(m); theory says
(p − 1) / (m + p − 1). The model is a chain of equal blocks and there is no optimizer.
"""

import statistics

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from gpt import Block

SHAPE = {"width": 128, "heads": 4, "layers": 4, "sequence": 64, "batch": 4}
COUNTS = (2, 4, 8, 16)


class Chain(nn.Module):
    """Equal blocks and a mean square loss."""

    def __init__(self, shape):
        super().__init__()
        self.blocks = nn.ModuleList(Block(shape["width"], shape["heads"]) for _ in range(shape["layers"]))

    def forward(self, x, y):
        for block in self.blocks:
            x = block(x)
        return F.mse_loss(x, y)


def data(shape, count):
    generator = torch.Generator().manual_seed(count)
    size = (shape["batch"] * count, shape["sequence"], shape["width"])
    return torch.randn(size, generator=generator), torch.randn(size, generator=generator)


def ours(shape, name):
    import smdistributed.modelparallel.torch as smp

    size = dist.get_world_size()
    smp.init(
        {
            "pipeline_parallel_degree": size,
            "microbatches": 1,
            "active_microbatches": max(COUNTS),
            "pipeline": name,
            "auto_partition": False,
            "default_partition": 0,
        }
    )
    chain = Chain(shape)
    for index, block in enumerate(chain.blocks):
        smp.set_partition(block, index * size // shape["layers"])
    model = smp.DistributedModel(chain)

    @smp.step
    def train_step(model, x, y):
        loss = model(x, y)
        model.backward(loss)
        return loss

    def step(count):
        smp.state.cfg.microbatches = count
        model.module.zero_grad()
        train_step(model, *data(shape, count))

    return step


def bare(shape, kind):
    size, rank = dist.get_world_size(), dist.get_rank()
    each = shape["layers"] // size
    module = nn.Sequential(*(Block(shape["width"], shape["heads"]) for _ in range(each)))
    stage = PipelineStage(module, rank, size, torch.device("cpu"))
    schedules = {count: kind(stage, count, loss_fn=F.mse_loss) for count in COUNTS}

    def step(count):
        x, y = data(shape, count)
        module.zero_grad()
        last = rank == size - 1
        schedules[count].step(*((x,) if rank == 0 else ()), target=y if last else None)

    return step


def slope(times):
    """Seconds of one more micro-batch, by least squares."""
    counts = list(times)
    mean, middle = statistics.mean(counts), statistics.mean(times.values())
    return sum((c - mean) * (times[c] - middle) for c in counts) / sum((c - mean) ** 2 for c in counts)


def measure(request):
    from rank import timed

    shape, stages = {**SHAPE, **request["shape"]}, dist.get_world_size()
    name, kind = {"simple": ("simple", ScheduleGPipe), "interleaved": ("interleaved", Schedule1F1B)}[request["schedule"]]
    steps = {"ours": ours(shape, name), "bare": bare(shape, kind)}
    found = {who: {count: [] for count in COUNTS} for who in steps}
    for number in range(request["rounds"] + 1):
        for count in COUNTS:
            for who in list(steps)[:: 1 if number % 2 else -1]:
                seconds, _ = timed(steps[who], count, 1)
                if number:
                    found[who][count].append(seconds)
    answer = {"stages": stages, "shape": shape}
    for who, samples in found.items():
        # The fastest round is the least disturbed by other work on the machine.
        times = {count: min(values) for count, values in samples.items()}
        t = slope(times)
        answer[who] = {
            str(count): {"seconds": times[count], "idle": 1 - count * t / times[count], "theory": (stages - 1) / (count + stages - 1)}
            for count in COUNTS
        }
    return answer
