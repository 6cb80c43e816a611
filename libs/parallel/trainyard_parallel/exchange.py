"""Collectives with gradients, for one process group; rows are the first axis.

| forward | result | backward |
| --- | --- | --- |
| gather_rows | [N, …] of every rank → [R·N, …] | sum, own rows |
| scatter_rows | sum of [R·N, …], own rows → [N, …] | gather_rows |
| swap_rows | rows by destination → rows by source | the same back |
| sum_values | sum over ranks | identity |
| sum_gradients | identity | sum over ranks |

Every member of the group must call them in the same order.
"""

import torch
import torch.distributed as dist

# Renamed in torch 2.13.
reduce_scatter_single = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather(x, group):
    size = dist.get_world_size(group)
    out = x.new_empty(size * x.shape[0], *x.shape[1:])
    dist.all_gather(list(out.chunk(size)), x.contiguous(), group=group)
    return out


def scatter(x, group):
    out = x.new_empty(x.shape[0] // dist.get_world_size(group), *x.shape[1:])
    reduce_scatter_single(out, x.contiguous(), group=group)
    return out


def swap(x, received, sent, group):
    out = x.new_empty(sum(received), *x.shape[1:])
    dist.all_to_all_single(out, x.contiguous(), received, sent, group=group)
    return out


def total(x, group):
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=group)
    return x


class GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return gather(x, group)

    @staticmethod
    def backward(ctx, gradient):
        return scatter(gradient, ctx.group), None


class ScatterRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return scatter(x, group)

    @staticmethod
    def backward(ctx, gradient):
        return gather(gradient, ctx.group), None


class SwapRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, received, sent, group):
        ctx.rest = received, sent, group
        return swap(x, received, sent, group)

    @staticmethod
    def backward(ctx, gradient):
        received, sent, group = ctx.rest
        return swap(gradient, sent, received, group), None, None, None


class SumValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        return total(x, group)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class SumGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return total(gradient, ctx.group), None


class ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


gather_rows, scatter_rows, swap_rows = GatherRows.apply, ScatterRows.apply, SwapRows.apply
sum_values, sum_gradients = SumValues.apply, SumGradients.apply
