"""Experts spread over ranks equal one process with the same routing, in float64."""

import functools

import pytest
import torch
import torch.distributed as dist

import zoo
from test_v2 import BOUND, SIZES, initialise, optimizer_of, slice_of, transformers, whole

LOSSES = {"moe_aux_loss_coeff": 0.1, "moe_z_loss_coeff": 0.1}


def make(experts=4):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(11)
    config = transformers.MixtralConfig(
        **SIZES, num_key_value_heads=2, max_position_embeddings=16, num_local_experts=experts, num_experts_per_tok=2
    )
    config._attn_implementation, config._experts_implementation = "sdpa", "eager"
    return transformers.MixtralForCausalLM(config).to(torch.float64)


def exact_gate(self, hidden_states):
    """transformers' router without its rounding to float32."""
    logits = torch.nn.functional.linear(hidden_states.flatten(0, -2), self.weight)
    value, chosen = logits.softmax(-1).topk(self.top_k, -1)
    return logits, value / value.sum(-1, keepdim=True), chosen


def without_rounding(model):
    for module in model.modules():
        if type(module).__name__ == "MixtralTopKRouter":
            module.forward = functools.partial(exact_gate, module)


def loss_of(model, x, y):
    return zoo.token_loss(model(input_ids=x).logits, y)


def alone(steps, parts, moe):
    """One process; routing sees `parts` slices of the batch one by one, as the ranks do."""
    import torch.sagemaker as tsm
    from torch.sagemaker.moe import moe_config

    model = make()
    if moe is None:
        without_rounding(model)
    else:
        kept, sharing = tsm.state.expert_mesh, (tsm.state.ep_process_group, tsm.state.expert_parallel_degree)
        tsm.state.expert_mesh, tsm.state.ep_process_group, tsm.state.expert_parallel_degree = None, None, 1
        try:
            # Losses beside the model's have weight 1 in every slice, the model's 1 / parts.
            moe = {key: value / parts if key.endswith("coeff") else value for key, value in moe.items()}
            return train_alone(dense(model, moe_config.parse(moe)), steps, parts)
        finally:
            tsm.state.expert_mesh, (tsm.state.ep_process_group, tsm.state.expert_parallel_degree) = kept, sharing
    return train_alone(model, steps, parts)


def dense(model, config):
    from torch.sagemaker.moe.moe_layer import spread_experts

    assert spread_experts(model, config) == 2
    return model


def train_alone(model, steps, parts):
    opt = optimizer_of(model)
    losses = []
    for step in range(steps):
        opt.zero_grad()
        total = 0.0
        for x, y in zip(*(t.chunk(parts) for t in zoo.data("gpt", step))):
            loss = loss_of(model, x, y) / parts
            loss.backward()
            total += loss.item()
        opt.step()
        losses.append(total)
    return losses, whole(model)


def prepare(tsm, moe, from_rank0=False):
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
    from torch.sagemaker.fsdp import FullyShardedDataParallel as FSDP
    from torch.sagemaker.moe.moe_layer import MoELayer
    from torch.sagemaker.tensor_parallel.transformer import TransformerLayer

    if from_rank0 and dist.get_rank() != 0:
        with torch.device("meta"):
            model = make()
    else:
        model = make()
    model = tsm.transform(model, config=moe, load_state_dict_from_rank0=from_rank0)
    assert sum(isinstance(m, MoELayer) for m in model.modules()) == sum(isinstance(m, TransformerLayer) for m in model.modules()) == 2
    policy = functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={TransformerLayer, MoELayer})
    return FSDP(model, auto_wrap_policy=policy, sync_module_states=True)


def compare(rank, config, moe=None, from_rank0=False, steps=2):
    tsm = initialise(config)
    replicas = dist.get_world_size() // tsm.state.tp_size
    expected, reference = alone(steps, replicas, moe)
    model = prepare(tsm, moe, from_rank0)
    opt = optimizer_of(model)
    losses = []
    for step in range(steps):
        opt.zero_grad()
        loss = loss_of(model, *(slice_of(t, tsm) for t in zoo.data("gpt", step)))
        loss.backward()
        opt.step()
        loss = loss.detach().clone()
        dist.all_reduce(loss)
        losses.append(loss.item() / dist.get_world_size())
    return max(abs(a - b) / abs(b) for a, b in zip(losses, expected)), zoo.difference(whole(model), reference)


def check(world, config, **options):
    for loss, weights in world.run(functools.partial(compare, config=config, **options)):
        assert loss <= BOUND and weights <= BOUND, (loss, weights)


@pytest.mark.parametrize(
    "moe",
    [
        None,
        {"moe_load_balancing": "sinkhorn", **LOSSES},
        {"moe_load_balancing": "aux_loss", **LOSSES},
        {"moe_load_balancing": "none", "moe_z_loss_coeff": 0.0, "moe_all_to_all_dispatcher": False},
    ],
    ids=["model's", "sinkhorn", "aux_loss", "all-gather"],
)
def test_experts_over_two_ranks(worlds, moe):
    check(worlds(2), {"expert_parallel_degree": 2}, moe=moe)


@pytest.mark.parametrize(
    "config",
    [
        {"expert_parallel_degree": 4},
        {"expert_parallel_degree": 2, "hybrid_shard_degree": 2},
        {"expert_parallel_degree": 2, "hybrid_shard_degree": 4},
        {"expert_parallel_degree": 2, "hybrid_shard_degree": 1},
        {"tensor_parallel_degree": 2},
    ],
    ids=["ep4", "ep2 shard2", "ep2 shard4", "ep2 shard1", "tp2"],
)
def test_experts_over_four_ranks(worlds, config):
    check(worlds(4), config, from_rank0=True)


def routed(rank, chosen):
    """All tokens to the experts in `chosen`: some ranks get everything, some nothing."""
    from torch.sagemaker.moe.moe_config import MoEConfig
    from torch.sagemaker.moe.moe_layer import MoELayer

    tsm = initialise({"expert_parallel_degree": 4})
    config = MoEConfig(moe_load_balancing="none", moe_z_loss_coeff=0.0)
    block, copy = (next(m for m in make().modules() if type(m).__name__ == "MixtralSparseMoeBlock") for _ in range(2))
    layer = MoELayer(block, config)
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(2, 3 + rank, 16, generator=generator, dtype=torch.float64).requires_grad_()
    scores = torch.full((2 * (3 + rank), 4), -50.0)
    scores[:, chosen] = torch.randn(2 * (3 + rank), len(chosen), generator=generator, dtype=torch.float64)
    for module in (layer, copy):
        module.gate.forward = lambda h: (scores, *exact(scores))
    out = layer(x)
    out.square().sum().backward()
    own, x.grad = x.grad, None
    expected = copy(x)
    expected.square().sum().backward()
    gradient = copy.experts.down_proj.grad
    dist.all_reduce(gradient)
    found = layer.experts.down_proj.grad.to_local()
    return (
        (out - expected).abs().max().item(),
        (own - x.grad).abs().max().item(),
        # A data-parallel mean over the ranks that hold the same experts, here this one alone.
        (found - gradient[rank : rank + 1] / 4).abs().max().item(),
        tsm.state.ep_rank,
    )


def exact(scores):
    value, chosen = scores.softmax(-1).topk(2, -1)
    return value / value.sum(-1, keepdim=True), chosen


@pytest.mark.parametrize("chosen", [[0, 1], [2, 3], [1, 3]])
def test_uneven_and_empty_experts(worlds, chosen):
    for rank, (*errors, ep_rank) in enumerate(worlds(4).run(routed, chosen)):
        assert max(errors) < 1e-13 and ep_rank == rank, errors


def moved(rank, config, path=None):
    """Saves in Hugging Face's form, or loads what was saved on other degrees."""
    from torch.sagemaker.distributed.checkpoint import state_dict_loader, state_dict_saver

    tsm = initialise(config)
    model = prepare(tsm, None if config else {"moe_load_balancing": "none"})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0 if config else 3.0)
    if config:
        state_dict_saver.save(model.state_dict(), checkpoint_id=path)
    else:
        state_dict_loader.load(model.state_dict(), checkpoint_id=path)
    found = whole(model)
    plain = make()
    plain.load_state_dict(found)
    return max((found[name] - 2 * value).abs().max().item() for name, value in make().state_dict().items())


def test_checkpoints_hold_all_experts_in_the_names_of_the_model(worlds, tmp_path):
    assert max(worlds(4).run(moved, {"expert_parallel_degree": 2, "hybrid_shard_degree": 2}, str(tmp_path))) == 0
    assert max(worlds(2).run(moved, {}, str(tmp_path))) == 0


def clipped(rank, config):
    from torch.sagemaker.grad_norm import clip_grad_norm_

    tsm = initialise(config)
    model = prepare(tsm, {"moe_load_balancing": "none", "moe_z_loss_coeff": 0.0})
    loss_of(model, *(slice_of(t, tsm) for t in zoo.data("gpt", 0))).backward()
    return clip_grad_norm_(model, 1e-3).item()


def test_the_gradient_norm_counts_every_expert_once(worlds):
    (expected,) = set(worlds(1).run(clipped, {}))
    for config in ({"expert_parallel_degree": 2}, {"expert_parallel_degree": 4}):
        for found in worlds(4).run(clipped, config):
            assert found == pytest.approx(expected, rel=1e-12)


def test_a_balanced_choice_gives_experts_like_loads():
    from torch.sagemaker.moe import routing

    torch.manual_seed(0)
    logits = torch.randn(64, 4, dtype=torch.float64) + torch.tensor([3.0, 0.0, 0.0, 0.0])
    plain = torch.bincount(routing.route(logits, 1, "none", True)[1].flatten(), minlength=4)
    even = torch.bincount(routing.route(logits, 1, "sinkhorn", True)[1].flatten(), minlength=4)
    assert plain.max() > 48 and even.max() < 32
    scaled = routing.sinkhorn(logits)
    assert torch.allclose(scaled.sum(0), torch.full((4,), 0.25, dtype=torch.float64), atol=1e-3)


def refusals(rank):
    from torch.sagemaker.moe.moe_config import MoEConfig

    tsm = initialise({"expert_parallel_degree": 2})
    calls = (
        lambda: tsm.transform(make(), config=MoEConfig(smp_moe=False)),
        lambda: tsm.transform(make(3)),
        lambda: MoEConfig(moe_load_balancing="random"),
        lambda: MoEConfig(global_token_shuffle=True),
    )
    found = []
    for call in calls:
        with pytest.raises((NotImplementedError, ValueError)) as error:
            call()
        found.append(str(error.value))
    return found


def test_impossible_settings_are_refused(worlds):
    none, three, kind, shuffle = worlds(2).run(refusals)[0]
    assert none.startswith("expert_parallel_degree is 2 but MixtralForCausalLM has no experts that are replaced")
    assert three == "the model has 3 experts, which expert_parallel_degree 2 must divide"
    assert kind.startswith("moe_load_balancing is 'random' but must be one of sinkhorn")
    assert shuffle.startswith("global_token_shuffle is not available yet")
