"""Which experts a token goes to, and what balances their load.

Legend: N tokens, E experts, K experts for each token.
"""

import torch
import torch.nn.functional as F


def route(logits_NE, top_k, balancing, is_training):
    """(weights [N, K] that sum to 1, experts [N, K]); probabilities in float32 at least."""
    scores = logits_NE if logits_NE.dtype == torch.float64 else logits_NE.float()
    chooser = scores
    if balancing == "sinkhorn" and is_training:
        with torch.no_grad():
            chooser = sinkhorn(scores)
    experts = chooser.topk(top_k, -1).indices
    return scores.gather(-1, experts).softmax(-1), experts


def sinkhorn(scores_NE, tolerance=1e-4, most=100):
    """exp(scores) with rows and columns scaled to equal sums: an assignment that gives all experts like loads.

    Sinkhorn and Knopp; as for mixtures of experts in Clark and others, https://arxiv.org/abs/2202.01169. Stops when
    the columns' scales change by less than `tolerance` on average, or after `most` rounds.
    """
    cost = (scores_NE - scores_NE.amax(-1, keepdim=True)).exp()
    tokens, experts = cost.shape
    columns = cost.new_ones(experts)
    rows = cost.new_ones(tokens)
    for _ in range(most):
        rows = 1 / (tokens * (cost * columns).sum(1) + 1e-8)
        before, columns = columns, 1 / (experts * (cost * rows[:, None]).sum(0) + 1e-8)
        if (columns - before).abs().mean() < tolerance:
            break
    return cost * columns * rows[:, None]


def balance_loss(logits_NE, experts_NK):
    """E · Σ (share of choices) · (mean probability), which is 1 where both are even.

    Fedus and others, https://arxiv.org/abs/2101.03961, equations 4 to 6.
    """
    count = logits_NE.shape[-1]
    shares = torch.bincount(experts_NK.flatten(), minlength=count).to(logits_NE.dtype) / experts_NK.numel()
    return count * (shares * F.softmax(logits_NE, -1).mean(0)).sum()


def z_loss(logits_NE):
    """Mean squared log-sum-exp. Zoph and others, https://arxiv.org/abs/2202.08906, equation 5."""
    return logits_NE.logsumexp(-1).square().mean()


class WithLoss(torch.autograd.Function):
    """The value as it is; in the backward `loss` gets gradient 1, as if it had been added to the model's loss."""

    @staticmethod
    def forward(ctx, value, loss):
        ctx.like = loss
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, torch.ones_like(ctx.like)


with_loss = WithLoss.apply
