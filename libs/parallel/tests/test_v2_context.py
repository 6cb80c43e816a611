"""Sequences spread over ranks: logits in order, losses and weights equal one process, in float64."""

import functools

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

import test_v2
import test_v2_experts
import zoo
from test_v2 import BOUND, initialise, optimizer_of, whole

SEQUENCE = 16


def make(name):
    return test_v2_experts.make() if name == "mixtral" else test_v2.make(name)


def batch(step, replicas):
    generator = torch.Generator().manual_seed(100 + step)
    ids = torch.randint(32, (4, SEQUENCE), generator=generator)
    labels = ids.clone()
    if replicas == 1:
        # Means of replicas have equal weights, so with several all need equally many labels.
        labels[0, :5] = -100
    return ids, labels


def alone(name, steps, replicas):
    model = make(name)
    model.set_attn_implementation("sdpa")
    if name == "mixtral":
        test_v2_experts.without_rounding(model)
    opt = optimizer_of(model)
    losses, first = [], None
    for step in range(steps):
        ids, labels = batch(step, replicas)
        opt.zero_grad()
        logits = model(input_ids=ids).logits
        first = logits.detach() if first is None else first
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses, whole(model), first


def prepare(tsm, name, kind):
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
    from torch.sagemaker.fsdp import FullyShardedDataParallel as FSDP

    model = tsm.transform(make(name), cp_comm_type=kind)
    policy = functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={type(model.base_model.layers[0])})
    return FSDP(model, auto_wrap_policy=policy, sync_module_states=True)


def compare(rank, config, name, kind, steps=2):
    from torch.sagemaker.context_parallel.attention import positions
    from torch.sagemaker.context_parallel.utils import get_batch_for_cp_rank

    tsm = initialise(config)
    cp, replica = tsm.state.cp_size, rank // (tsm.state.tp_size * tsm.state.cp_size)
    replicas = dist.get_world_size() // (tsm.state.tp_size * cp)
    expected, reference, logits = alone(name, steps, replicas)
    model = prepare(tsm, name, kind)
    opt = optimizer_of(model)
    worst = 0.0
    for step in range(steps):
        ids, labels = get_batch_for_cp_rank([t.chunk(replicas)[replica] for t in batch(step, replicas)])
        opt.zero_grad()
        output = model(input_ids=ids, labels=labels)
        output.loss.backward()
        opt.step()
        if step == 0:
            own = logits.chunk(replicas)[replica][:, positions(tsm.state.cp_rank, cp, SEQUENCE // cp)]
            worst = ((output.logits - own).abs().max() / logits.abs().max()).item()
        loss = output.loss.detach().clone()
        dist.all_reduce(loss)
        worst = max(worst, abs(loss.item() / dist.get_world_size() - expected[step]) / expected[step])
    return worst, zoo.difference(whole(model), reference)


def check(world, config, name, kind):
    for outputs, weights in world.run(compare, config, name, kind):
        assert outputs <= BOUND and weights <= BOUND, (outputs, weights)


@pytest.mark.parametrize("name", ["llama", "mistral", "neox"])
@pytest.mark.parametrize("kind", ["p2p", "all_gather"])
def test_sequences_over_two_ranks(worlds, name, kind):
    check(worlds(2), {"context_parallel_degree": 2}, name, kind)


@pytest.mark.parametrize(
    "config, kind",
    [
        ({"context_parallel_degree": 4}, "p2p"),
        ({"context_parallel_degree": 4}, "all_gather"),
        ({"context_parallel_degree": 2, "tensor_parallel_degree": 2}, "p2p"),
        ({"context_parallel_degree": 2, "hybrid_shard_degree": 2}, "p2p"),
    ],
    ids=["cp4 ring", "cp4 gather", "cp2 tp2", "cp2 hybrid"],
)
def test_sequences_over_four_ranks(worlds, config, kind):
    check(worlds(4), config, "llama", kind)


def refusals(rank):
    from torch.sagemaker.context_parallel.utils import get_batch_for_cp_rank

    tsm = initialise({"context_parallel_degree": 2})
    model = tsm.transform(make("llama"))
    ids = torch.zeros(2, 6, dtype=torch.long)
    calls = (
        lambda: get_batch_for_cp_rank([ids]),
        lambda: model(input_ids=ids[:, :3]),
        lambda: model(input_ids=ids, attention_mask=torch.tensor([[1] * 6, [0] * 6])),
        lambda: tsm.transform(make("llama"), cp_comm_type="a2a"),
    )
    found = []
    for call in calls:
        with pytest.raises((RuntimeError, ValueError)) as error:
            call()
        found.append(str(error.value))
    return found


def test_what_cannot_be_spread_is_refused(worlds):
    uneven, odd, padded, kind = worlds(2).run(refusals)[0]
    assert uneven == "sequences have 6 tokens, which 2 × context_parallel_degree 2 = 4 must divide"
    assert odd.startswith("this rank got 3 tokens of each sequence; context_parallel_degree 2 needs")
    assert padded.startswith("attention_mask hides tokens")
    assert kind == "cp_comm_type is 'a2a' but must be one of p2p, all_gather"


def test_sequences_and_experts_over_four_ranks(worlds):
    check(worlds(4), {"context_parallel_degree": 2, "expert_parallel_degree": 2}, "mixtral", "p2p")


def halves(rank, dtype):
    """Attention in half precision against float64 on the same rounded inputs; gradients too."""
    from torch.sagemaker.context_parallel.attention import RingAttention, gathered_attention, positions

    tsm = initialise({"context_parallel_degree": 2})
    generator = torch.Generator().manual_seed(4)
    q, k, v, g = (torch.randn(2, n, SEQUENCE, 8, generator=generator, dtype=torch.float32).to(dtype) for n in (4, 2, 2, 4))
    own = positions(rank, 2, SEQUENCE // 2)
    exact = [t.double().requires_grad_() for t in (q, k, v)]
    out = F.scaled_dot_product_attention(exact[0], *(t.repeat_interleave(2, 1) for t in exact[1:]), is_causal=True)
    out.backward(g.double())
    worst = []
    for attend in (RingAttention.apply, gathered_attention):
        parts = [t[:, :, own].clone().requires_grad_() for t in (q, k, v)]
        found = attend(*parts, 8**-0.5, tsm.state.cp_process_group)
        found.backward(g[:, :, own])
        pairs = [(found, out), *((part.grad, whole.grad) for part, whole in zip(parts, exact))]
        worst += [((a.double() - b[:, :, own]).abs().max() / b.abs().max()).item() for a, b in pairs]
        assert found.dtype == dtype and parts[1].grad.dtype == dtype
    return worst


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 2**-7), (torch.float32, 1e-6)])
def test_sums_of_half_precision_blocks_are_wide(worlds, dtype, bound):
    for ring in worlds(2).run(halves, dtype):
        # The gathered variant rounds where torch's kernel does.
        assert max(ring[:4]) < bound and max(ring[4:]) < 4 * bound, ring
