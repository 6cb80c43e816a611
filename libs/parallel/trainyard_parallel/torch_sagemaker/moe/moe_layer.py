"""A block of experts spread over ranks: `torch.sagemaker.moe.moe_layer.MoELayer`.

Ranks of an expert-parallel group hold different experts and different tokens. A rank routes its own tokens, sends each to
the ranks of its experts (an all-to-all of rows, twice; or an all-gather and a reduce-scatter), and weighs what comes
back. Ranks of a tensor-parallel group hold different experts and the same tokens: each computes its experts' part and the
parts are summed.

Names of parameters are those of transformers' Mixtral: `gate.weight [E, C]`, `experts.gate_up_proj [E, 2I, C]`,
`experts.down_proj [E, C, I]`; spread experts are DTensors that are split along E, so state dicts hold the whole.
Legend: N tokens of this rank, E experts, K experts of a token, C channels, I inner channels.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.sagemaker.moe import routing
from torch.sagemaker.state_handler import state

from trainyard_parallel.errors import SMPConfigError
from trainyard_parallel.exchange import ScaleGradient, gather, gather_rows, scatter_rows, sum_gradients, sum_values, swap_rows


class Experts(nn.Module):
    """This rank's experts. Under expert parallelism a data-parallel mean divides their gradients by the ranks that hold
    the same experts, while the gradients already sum over the group's tokens: hence 1/ep."""

    def __init__(self, original):
        super().__init__()
        self.act_fn, self.total = original.act_fn, original.gate_up_proj.shape[0]
        mesh = state.expert_mesh["ep"] if state.expert_mesh is not None else state.mesh["tp"]
        ranks, rank = mesh.size(), mesh.get_local_rank()
        if self.total % ranks:
            field = "expert_parallel_degree" if state.expert_mesh is not None else "tensor_parallel_degree"
            raise SMPConfigError(f"the model has {self.total} experts, which {field} {ranks} must divide")
        self.count, self.first = self.total // ranks, rank * (self.total // ranks)
        self.factor = 1 / state.expert_parallel_degree
        for name in ("gate_up_proj", "down_proj"):
            whole = getattr(original, name).detach()
            # Scatters what the group's first rank has.
            self.register_parameter(name, nn.Parameter(distribute_tensor(whole, mesh, [Shard(0)]) if ranks > 1 else whole))

    def weight(self, name):
        value = getattr(self, name)
        value = value.to_local() if isinstance(value, DTensor) else value
        return ScaleGradient.apply(value, self.factor) if self.factor != 1 else value

    def forward(self, x, counts):
        """Rows in order of experts; `counts` says how many each has."""
        first, second = self.weight("gate_up_proj"), self.weight("down_proj")
        out = []
        # An expert without tokens works on none, so that its weights get a gradient of zero on every rank.
        for expert, rows in enumerate(x.split(counts)):
            gate, up = F.linear(rows, first[expert]).chunk(2, -1)
            out.append(F.linear(self.act_fn(gate) * up, second[expert]))
        return torch.cat(out)


class MoELayer(nn.Module):
    """Takes hidden states [B, S, C] and gives their sum over experts; made from a block of Mixtral by `tsm.transform`."""

    def __init__(self, block, config):
        super().__init__()
        self.gate, self.experts, self.config = block.gate, Experts(block.experts), config
        self.top_k, self.jitter = block.top_k, getattr(block, "jitter_noise", 0.0)

    def forward(self, hidden_states):
        if self.training and self.jitter:
            hidden_states = hidden_states * torch.empty_like(hidden_states).uniform_(1 - self.jitter, 1 + self.jitter)
        x = hidden_states.flatten(0, -2)
        logits = self.gate(x)[0]
        weights, experts = routing.route(logits, self.top_k, self.config.moe_load_balancing, self.training)
        if self.training:
            weights = self.add_losses(weights, logits, experts)
        weights = weights.to(x.dtype)
        if state.tp_size > 1:
            group = state.tp_process_group
            out = sum_values(self.local(sum_gradients(x, group), sum_gradients(weights, group), experts), group)
        elif state.ep_process_group is None:
            out = self.local(x, weights, experts)
        elif self.config.moe_all_to_all_dispatcher:
            out = self.send(x, weights, experts, state.ep_process_group)
        else:
            group = state.ep_process_group
            out = self.local(gather_rows(x, group), gather_rows(weights, group), gather(experts, group))
            out = scatter_rows(out, group)
        return out.view_as(hidden_states)

    def add_losses(self, weights, logits, experts):
        config = self.config
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if config.moe_load_balancing == "aux_loss" and config.moe_aux_loss_coeff:
            weights = routing.with_loss(weights, config.moe_aux_loss_coeff * routing.balance_loss(logits, experts))
        if config.moe_z_loss_coeff:
            weights = routing.with_loss(weights, config.moe_z_loss_coeff * routing.z_loss(logits))
        return weights

    def local(self, x, weights, experts):
        """The part of this rank's experts for all the rows."""
        numbers = experts.flatten() - self.experts.first
        order = numbers.argsort(stable=True)
        counts = torch.bincount(numbers.clamp(-1, self.experts.count) + 1, minlength=self.experts.count + 2).tolist()
        own = order[counts[0] : order.numel() - counts[-1]]
        rows = own // self.top_k
        value = self.experts(x[rows], counts[1:-1]) * weights.flatten()[own, None]
        return torch.zeros_like(x).index_add(0, rows, value)

    def send(self, x, weights, experts, group):
        """Every token to the ranks of its experts and back."""
        ranks, own = state.expert_parallel_degree, self.experts.count
        order = experts.flatten().argsort(stable=True)
        counts = torch.bincount(experts.flatten(), minlength=ranks * own)
        arriving = swap_rows(counts, [own] * ranks, [own] * ranks, group).view(ranks, own)
        sent, received = counts.view(ranks, own).sum(1).tolist(), arriving.sum(1).tolist()
        rows = swap_rows(x[order // self.top_k], received, sent, group)
        # They arrive by rank and expert; experts work on rows by expert and rank.
        by_expert = [part for parts in zip(*batched(rows.split(arriving.flatten().tolist()), own)) for part in parts]
        value = self.experts(torch.cat(by_expert), arriving.sum(0).tolist())
        by_rank = [part for parts in zip(*batched(value.split(arriving.t().flatten().tolist()), ranks)) for part in parts]
        value = swap_rows(torch.cat(by_rank), sent, received, group)
        back = torch.empty_like(value).index_copy(0, order, value)
        return (back.unflatten(0, (-1, self.top_k)) * weights[..., None]).sum(1)


def batched(values, size):
    return [values[i : i + size] for i in range(0, len(values), size)]


def spread_experts(model, config):
    """Replaces the model's blocks of experts in place; returns how many there were."""
    found = [
        (parent, name, child)
        for parent in list(model.modules())
        for name, child in parent.named_children()
        if type(child).__name__ == "MixtralSparseMoeBlock"
    ]
    for parent, name, child in found:
        layer = MoELayer(child, config)
        setattr(parent, name, layer.train(child.training))
    return len(found)
