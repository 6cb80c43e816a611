"""How activations move between the ranks of a tensor-parallel group, with their gradients.

Legend: B samples of this rank, t ranks, C channels. Without `prescaled_batch` the ranks hold different samples, so a
split layer first sees all t·B of them and gives each rank its own B back:

| forward | moves | backward |
| --- | --- | --- |
| gather_batch | [B, …, C] → [tB, …, C] | scatter_sum |
| scatter_sum | partial sums [tB, …, C] → [B, …, C] | gather_batch |
| rows_to_columns | [B, …, C] → [tB, …, C/t] | columns_to_rows |
| columns_to_rows | [tB, …, C/t] → [B, …, C] | rows_to_columns |

With `prescaled_batch` all ranks hold the same samples and compute the same loss: gather_batch keeps the tensor and
sums gradients, scatter_sum sums and keeps gradients, rows_to_columns takes the own channels, columns_to_rows joins.
"""

import torch
import torch.distributed as dist

from trainyard_parallel.state import state

# Renamed in torch 2.13.
reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def all_gather(x, dim):
    group = state.group("tp")
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(state.size("tp"))]
    dist.all_gather(parts, x.contiguous(), group=group)
    return torch.cat(parts, dim)


def all_reduce(x):
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=state.group("tp"))
    return x


def own_part(x, dim):
    return x.chunk(state.size("tp"), dim)[state.rank("tp")].contiguous()


def reduce_scatter(x):
    out = torch.empty(x.shape[0] // state.size("tp"), *x.shape[1:], dtype=x.dtype, device=x.device)
    reduce_scatter_single(out, x.contiguous(), group=state.group("tp"))
    return out


def exchange(parts):
    """Part i goes to rank i; returns what came from each rank. All parts have one shape."""
    stacked = torch.stack([part.contiguous() for part in parts])
    received = torch.empty_like(stacked)
    dist.all_to_all_single(received, stacked, group=state.group("tp"))
    return list(received)


def to_columns(x):
    return torch.cat(exchange(x.chunk(state.size("tp"), -1)), 0)


def to_rows(x):
    return torch.cat(exchange(x.chunk(state.size("tp"), 0)), -1)


def movement(forward, backward):
    class Movement(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return forward(x)

        @staticmethod
        def backward(ctx, gradient):
            return backward(gradient)

    return Movement.apply


def same(x):
    return x.view_as(x)


PLAIN = {
    "gather_batch": movement(lambda x: all_gather(x, 0), reduce_scatter),
    "scatter_sum": movement(reduce_scatter, lambda g: all_gather(g, 0)),
    "rows_to_columns": movement(to_columns, to_rows),
    "columns_to_rows": movement(to_rows, to_columns),
}
PRESCALED = {
    "gather_batch": movement(same, all_reduce),
    "scatter_sum": movement(all_reduce, same),
    "rows_to_columns": movement(lambda x: own_part(x, -1), lambda g: all_gather(g, -1)),
    "columns_to_rows": movement(lambda x: all_gather(x, -1), lambda g: own_part(g, -1)),
}


def move(name, x):
    """`x` after the named movement; every rank of the tensor-parallel group must call it with equal shapes."""
    if state.size("tp") == 1 or x.is_meta:
        return meta_result(name, x) if x.is_meta else x
    return (PRESCALED if state.cfg.prescaled_batch else PLAIN)[name](x)


def meta_result(name, x):
    """The shape only, for following a model without data."""
    tp, rows = state.size("tp"), 1 if state.cfg.prescaled_batch else state.size("tp")
    more_rows, less_columns = name in ("gather_batch", "rows_to_columns"), name == "rows_to_columns"
    shape = list(x.shape)
    shape[0] = shape[0] * rows if more_rows else shape[0] // rows
    if name in ("rows_to_columns", "columns_to_rows"):
        shape[-1] = shape[-1] // tp if less_columns else shape[-1] * tp
    return x.flatten()[:1].expand(shape) if x.numel() else x.new_empty(shape)


def gather_samples(x):
    """Integer inputs and masks of all samples, without gradient."""
    if state.size("tp") == 1 or state.cfg.prescaled_batch or x is None:
        return x
    return meta_result("gather_batch", x) if x.is_meta else all_gather(x, 0)
