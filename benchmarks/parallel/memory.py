"""Peak of live tensor bytes of a training step on each rank, against the sum of what sharding must hold.

`live_bytes.c` counts them, preloaded into the rank. What the library may hold beside its share:

    share        parameters, gradients and AdamW's two moments of this rank
    activations  measured on one process without sharding: the peak of forward and backward when each gradient is
                 dropped as soon as it is there, less the parameters
    units        the two largest gathered units
    reduce       the gradients of the largest unit, whole, and its part that the reduction gives
    padding      rows that make a parameter's first dimension divide, in every buffer above
"""

import ctypes
import gc

import torch
import torch.distributed as dist

from cases import WIDE, make_gpt, own_rows
from gpt import Block, batch_of

# Mostly parameters, as where sharding is used.
SHAPE = {**WIDE, "width": 512, "layers": 6, "batch": 1}


class Live:
    """`peak`: the most bytes of CPU tensors that were alive at once in the context, beside those alive before."""

    def __enter__(self):
        self.library = ctypes.CDLL(None)
        for name in ("live_bytes", "peak_bytes"):
            getattr(self.library, name).restype = ctypes.c_size_t
        gc.collect()
        self.library.forget_peak()
        self.before = self.library.live_bytes()
        return self

    def __exit__(self, *error):
        self.peak = self.library.peak_bytes() - self.before


def bytes_of(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def activations(shape):
    model = make_gpt(shape)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with Live() as live:
        ids, labels = batch_of(shape, shape["batch"], 0)
        model(ids, labels).backward()
    return live.peak


def padded(parameters, ranks):
    """Bytes of parameters whose first dimension is filled up to a multiple of the ranks."""
    return sum(-(-p.shape[0] // ranks) * ranks * (p.numel() // p.shape[0]) * p.element_size() for p in parameters)


def expected(shape, ranks):
    model = make_gpt(shape)
    inside = {p for block in model.blocks for p in block.parameters()}
    units = [list(block.parameters()) for block in model.blocks] + [[p for p in model.parameters() if p not in inside]]
    plain = sorted((bytes_of(unit) for unit in units), reverse=True)
    filled = sorted((padded(unit, ranks) for unit in units), reverse=True)
    total, total_filled = sum(plain), sum(filled)
    return {
        "share": 4 * total // ranks,
        "activations": activations(shape),
        "units": sum(plain[:2]),
        "reduce": plain[0] + plain[0] // ranks,
        "padding": 4 * (total_filled - total) // ranks + sum(filled[:2]) - sum(plain[:2]) + (filled[0] - plain[0]) * (ranks + 1) // ranks,
    }


def v2(shape):
    import torch.sagemaker as tsm
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy
    from torch.sagemaker.fsdp import FullyShardedDataParallel

    tsm.init({"hybrid_shard_degree": dist.get_world_size()})
    model = FullyShardedDataParallel(make_gpt(shape), auto_wrap_policy=ModuleWrapPolicy({Block}))
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)

    def step(number):
        ids, labels = own_rows(shape, number)
        optimizer.zero_grad()
        model(ids, labels).backward()
        optimizer.step()

    return step


def v1(shape):
    import smdistributed.modelparallel.torch as smp

    config = {"ddp": True, "sharded_data_parallel_degree": dist.get_world_size(), "sdp_param_persistence_threshold": 0}
    smp.init(config)
    model = smp.DistributedModel(make_gpt(shape))
    optimizer = smp.DistributedOptimizer(torch.optim.AdamW(model.parameters(), foreach=False))

    @smp.step
    def train_step(model, ids, labels):
        loss = model(ids, labels)
        model.backward(loss)
        return loss

    def step(number):
        ids, labels = own_rows(shape, number)
        optimizer.zero_grad()
        train_step(model, ids, labels)
        optimizer.step()

    return step


def measure(request):
    shape = {**SHAPE, **request["shape"]}
    ranks = dist.get_world_size()
    terms = expected(shape, ranks)
    with Live() as live:
        step = {"v1": v1, "v2": v2}[request["version"]](shape)
        # Sharding starts from whole parameters, which are gone when training begins.
        live.library.forget_peak()
        for number in range(request["steps"]):
            step(number)
    peaks = torch.tensor([live.peak], dtype=torch.long)
    gathered = [torch.empty_like(peaks) for _ in range(ranks)]
    dist.all_gather(gathered, peaks)
    return {"peaks": [int(p) for p in gathered], "terms": terms, "sum": sum(terms.values()), "shape": shape}
