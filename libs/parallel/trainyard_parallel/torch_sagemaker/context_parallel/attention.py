"""Causal attention over a sequence that is spread over the ranks of a context-parallel group.

A sequence is cut into 2·R *chunks*; rank r of R holds chunks r and 2R−1−r, in this order, so that all ranks have equal
work under a causal mask. What rank r's queries see of the keys of rank s:

| s | queries | keys | mask |
| --- | --- | --- | --- |
| = r | both chunks | both chunks | causal, in the local order |
| < r | both chunks | the first chunk | none |
| > r | the second chunk | both chunks | none |

`ring`: keys and values travel around the ring while the block at hand is computed; a block's result is merged into the
sum by its log-sum-exp. In the backward they travel once more, with their gradients, which are home after R steps. A
rank sends 2·(R−1)/R of all keys and values forward and twice that backward, and never holds more than two blocks.
`gather`: an all-gather of keys and values first; its backward is a reduce-scatter.

Sums over blocks are float32 for half-precision inputs; keys and values travel in their own type, gradients as sums.

Legend: B samples, H heads, G key-value heads (G divides H), L tokens of this rank, D channels.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F

from trainyard_parallel.exchange import gather_rows


class Ring:
    """One turn of the ring: tensors go to the next rank and those of the rank before arrive, while others compute."""

    def __init__(self, group):
        self.group, self.rank, self.size = group, dist.get_rank(group), dist.get_world_size(group)
        self.next = dist.get_global_rank(group, (self.rank + 1) % self.size)
        self.before = dist.get_global_rank(group, (self.rank - 1) % self.size)

    def start(self, tensors):
        arriving = [torch.empty_like(tensor) for tensor in tensors]
        operations = [dist.P2POp(dist.isend, tensor, self.next, self.group) for tensor in tensors]
        operations += [dist.P2POp(dist.irecv, tensor, self.before, self.group) for tensor in arriving]
        return dist.batch_isend_irecv(operations), arriving

    @staticmethod
    def finish(started):
        for work in started[0]:
            work.wait()
        return started[1]


def visible(rank, source, length):
    """(first query, number of keys, causal) of the block between this rank's queries and the source's keys."""
    half = length // 2
    if source == rank:
        return 0, length, True
    return (0, half, False) if source < rank else (half, length, False)


def widened(x):
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def by_groups(q_BHLD, groups):
    """[B, G, H/G·L, D]: query heads that share a key-value head lie in one matrix."""
    return q_BHLD.unflatten(1, (groups, -1)).flatten(2, 3)


def scores(q_BGXD, k_BGTD, heads, scale, causal):
    result = q_BGXD @ k_BGTD.transpose(-1, -2) * scale
    if causal:
        size = k_BGTD.shape[-2]
        ahead = torch.ones(size, size, dtype=torch.bool, device=result.device).triu(1)
        result = result.unflatten(2, (heads, size)).masked_fill(ahead, float("-inf")).flatten(2, 3)
    return result


class RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_BHLD, k_BGLD, v_BGLD, scale, group):
        ring = Ring(group)
        groups, length = k_BGLD.shape[1], q_BHLD.shape[2]
        heads = q_BHLD.shape[1] // groups
        block, q = [k_BGLD.contiguous(), v_BGLD.contiguous()], widened(q_BHLD)
        out = torch.zeros_like(q)
        total = q.new_full(q.shape[:-1], float("-inf"))
        for step in range(ring.size):
            started = ring.start(block) if step < ring.size - 1 else None
            first, keys, causal = visible(ring.rank, (ring.rank - step) % ring.size, length)
            k, v = (widened(t[:, :, :keys]) for t in block)
            part = scores(by_groups(q[:, :, first:], groups), k, heads, scale, causal)
            size = part.logsumexp(-1)
            value = (part - size[..., None]).exp() @ v
            value, size = (t.unflatten(2, (heads, -1)).flatten(1, 2) for t in (value, size))
            # Both are means of values, weighted by the exponential of their sizes.
            merged = torch.logaddexp(total[:, :, first:], size)
            old, new = (total[:, :, first:] - merged).exp(), (size - merged).exp()
            out[:, :, first:] = out[:, :, first:] * old[..., None] + value * new[..., None]
            total[:, :, first:] = merged
            if started:
                block = Ring.finish(started)
        ctx.save_for_backward(q_BHLD, k_BGLD, v_BGLD, out, total)
        ctx.scale, ctx.group = scale, group
        return out.to(q_BHLD.dtype)

    @staticmethod
    def backward(ctx, gradient):
        q_BHLD, k_BGLD, v_BGLD, out, total = ctx.saved_tensors
        ring, scale = Ring(ctx.group), ctx.scale
        groups, length = k_BGLD.shape[1], q_BHLD.shape[2]
        heads = q_BHLD.shape[1] // groups
        block = [k_BGLD.contiguous(), v_BGLD.contiguous()]
        moving = [torch.zeros_like(widened(t)) for t in block]
        whole_q, gradient = widened(q_BHLD), widened(gradient)
        q_gradient = torch.zeros_like(whole_q)
        inner = (gradient * out).sum(-1)
        for step in range(ring.size):
            started = ring.start(block) if step < ring.size - 1 else None
            first, keys, causal = visible(ring.rank, (ring.rank - step) % ring.size, length)
            q, g = (by_groups(t[:, :, first:], groups) for t in (whole_q, gradient))
            size, own = (by_groups(t[:, :, first:, None], groups) for t in (total, inner))
            k, v = (widened(t[:, :, :keys]) for t in block)
            weights = (scores(q, k, heads, scale, causal) - size).exp()
            towards = weights * (g @ v.transpose(-1, -2) - own) * scale
            q_gradient[:, :, first:] += (towards @ k).unflatten(2, (heads, -1)).flatten(1, 2)
            moving[0][:, :, :keys] += towards.transpose(-1, -2) @ q
            moving[1][:, :, :keys] += weights.transpose(-1, -2) @ g
            # After the last block the gradients go one step more, to the rank whose keys they belong to.
            moving = Ring.finish(ring.start(moving))
            if started:
                block = Ring.finish(started)
        return *(t.to(q_BHLD.dtype) for t in (q_gradient, *moving)), None, None


def gathered_attention(q_BHLD, k_BGLD, v_BGLD, scale, group):
    rank, size, length = dist.get_rank(group), dist.get_world_size(group), q_BHLD.shape[2]
    whole = gather_rows(torch.stack([k_BGLD, v_BGLD], 1), group)
    k, v = whole.unflatten(0, (size, -1)).movedim(0, 3).flatten(3, 4).unbind(1)
    heads = q_BHLD.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(heads, 1) for t in (k, v))
    every = torch.cat([positions(r, size, length, q_BHLD.device) for r in range(size)])
    seen = every <= positions(rank, size, length, q_BHLD.device)[:, None]
    return F.scaled_dot_product_attention(q_BHLD, k, v, seen, scale=scale)


def positions(rank, size, length, device=None):
    """Places in the whole sequence of the `length` tokens that a rank holds."""
    half = length // 2
    inside = torch.arange(half, device=device)
    return torch.cat([rank * half + inside, (2 * size - 1 - rank) * half + inside])
