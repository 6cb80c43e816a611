"""SMP v2: transformed models under hybrid sharding equal one process, in float64."""

import functools

import pytest
import torch
import torch.distributed as dist

import zoo

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

BOUND = 1e-11
SIZES = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def make(name, tied=False):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(11)
    if name == "neox":
        config = transformers.GPTNeoXConfig(**SIZES, max_position_embeddings=16, hidden_dropout=0.0, attention_dropout=0.0)
        kind = transformers.GPTNeoXForCausalLM
    else:
        config = {"llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig}[name](
            **SIZES, num_key_value_heads=2, max_position_embeddings=16, tie_word_embeddings=tied
        )
        kind = {"llama": transformers.LlamaForCausalLM, "mistral": transformers.MistralForCausalLM}[name]
    config._attn_implementation = "eager"
    return kind(config).to(torch.float64)


def optimizer_of(model):
    # A larger epsilon than usual: key biases have no true gradient, and AdamW would step along rounding noise.
    return torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-3, foreach=False)


def loss_of(model, x, y):
    return zoo.token_loss(model(input_ids=x).logits, y)


def whole(model):
    return {name: (v.full_tensor() if hasattr(v, "full_tensor") else v).detach().clone() for name, v in model.state_dict().items()}


def alone(name, tied, steps=(0, 1, 2), clip=None):
    model = make(name, tied)
    opt = optimizer_of(model)
    losses = []
    for step in steps:
        opt.zero_grad()
        loss = loss_of(model, *zoo.data("gpt", step))
        loss.backward()
        if clip:
            losses.append(torch.nn.utils.clip_grad_norm_(model.parameters(), clip).item())
        opt.step()
        losses.append(loss.item())
    return losses, whole(model)


def initialise(config):
    import torch.sagemaker as tsm

    tsm.state.reset()
    tsm.init(config)
    return tsm


def prepare(tsm, name, tied):
    from torch.sagemaker.fsdp import FullyShardedDataParallel as FSDP

    model = make(name, tied)
    if dist.get_rank() != 0:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    model = tsm.transform(model, load_state_dict_from_rank0=True)
    layer = type(model.base_model.layers[0])
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    return FSDP(
        model,
        auto_wrap_policy=functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={layer}),
        use_orig_params=True,
        limit_all_gathers=True,
        sync_module_states=True,
    )


def slice_of(tensor, tsm):
    replicas = dist.get_world_size() // tsm.state.tp_size
    return tensor.chunk(replicas)[dist.get_rank() // tsm.state.tp_size]


def train(tsm, model, opt, steps, clip=None):
    from torch.sagemaker.grad_norm import clip_grad_norm_

    losses = []
    for step in steps:
        opt.zero_grad()
        loss = loss_of(model, *(slice_of(t, tsm) for t in zoo.data("gpt", step)))
        loss.backward()
        if clip:
            losses.append(clip_grad_norm_(model, clip).item())
        opt.step()
        loss = loss.detach().clone()
        dist.all_reduce(loss)
        losses.append(loss.item() / dist.get_world_size())
    return losses


def compare(rank, config, name="llama", tied=False, clip=None):
    tsm = initialise(config)
    model = prepare(tsm, name, tied)
    losses = train(tsm, model, optimizer_of(model), (0, 1, 2), clip)
    expected, reference = alone(name, tied, clip=clip)
    return max(abs(a - b) / abs(b) for a, b in zip(losses, expected)), zoo.difference(whole(model), reference)


def check(world, config, **options):
    for loss, weights in world.run(functools.partial(compare, config=config, **options)):
        assert loss <= BOUND and weights <= BOUND, (loss, weights)


@pytest.mark.parametrize("degree", [0, 1, 2, 4])
def test_hybrid_sharding_of_four_ranks(worlds, degree):
    check(worlds(4), {"hybrid_shard_degree": degree})


@pytest.mark.parametrize("name, tied", [("llama", False), ("llama", True), ("mistral", False), ("neox", False)])
def test_tensor_parallel_models(worlds, name, tied):
    check(worlds(2), {"tensor_parallel_degree": 2}, name=name, tied=tied)


@pytest.mark.parametrize("degree", [1, 2])
def test_tensor_parallel_with_hybrid_sharding(worlds, degree):
    check(worlds(4), {"tensor_parallel_degree": 2, "hybrid_shard_degree": degree}, clip=0.1)


def share(rank, config):
    tsm = initialise(config)
    model = prepare(tsm, "llama", False)
    local = sum(p.to_local().numel() for p in model.parameters())
    return local, sum(p.numel() for p in model.parameters()), tsm.state.ranker.get_rep_rank(rank), tsm.state.tp_rank


def test_each_rank_holds_its_share(worlds):
    found = worlds(4).run(share, {"tensor_parallel_degree": 2, "hybrid_shard_degree": 2})
    for rank, (local, total, rep_rank, tp_rank) in enumerate(found):
        norms = 5 * 16
        assert local == (total - norms) / 4 + norms / 2
        assert rep_rank == 0 and tp_rank == rank % 2


def save_and_go_on(rank, config, path):
    from torch.sagemaker.distributed.checkpoint import state_dict_saver

    tsm = initialise(config)
    model = prepare(tsm, "llama", False)
    train(tsm, model, optimizer_of(model), (0,))
    state_dict_saver.save(model.state_dict(), checkpoint_id=f"{path}/a")
    state_dict_saver.async_save(model.state_dict(), checkpoint_id=f"{path}/b")
    return state_dict_saver.maybe_finalize_async_calls(blocking=True), whole(model)


def load_again(rank, config, path):
    from torch.sagemaker.distributed.checkpoint import state_dict_loader

    found = []
    for name in "ab":
        tsm = initialise(config)
        model = prepare(tsm, "llama", False)
        state_dict_loader.load(model.state_dict(), checkpoint_id=f"{path}/{name}")
        found.append(whole(model))
    return found


def test_a_sharded_checkpoint_loads_on_other_ranks_and_degrees(worlds, tmp_path):
    saved = worlds(4).run(save_and_go_on, {"tensor_parallel_degree": 2, "hybrid_shard_degree": 2}, str(tmp_path))
    assert len(saved[0][0]) == 1 and len({numbers[0] for numbers, _ in saved}) == 1
    for config, size in (({"hybrid_shard_degree": 2}, 2), ({"tensor_parallel_degree": 2}, 2), ({}, 4)):
        for found in worlds(size).run(load_again, config, str(tmp_path)):
            assert all(zoo.difference(weights, saved[0][1]) == 0 for weights in found)


def refusals(rank):
    import torch.sagemaker as tsm

    found = []
    tsm = initialise({"tensor_parallel_degree": 2})
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**SIZES, "num_attention_heads": 4, "vocab_size": 33}, num_key_value_heads=1)
    for model in (transformers.LlamaForCausalLM(config), torch.nn.Linear(2, 2)):
        try:
            tsm.transform(model)
        except (ValueError, NotImplementedError) as error:
            found.append(str(error))
    return found


def test_models_that_cannot_be_split_are_refused(worlds):
    wrong, unknown = worlds(2).run(refusals)[0]
    assert "num_key_value_heads is 1, vocab_size is 33, which tensor_parallel_degree 2 must divide" in wrong
    assert "tensor parallelism of Linear is not available yet; models are LlamaForCausalLM" in unknown


def with_torchs_class(rank, config):
    """The functions of torch's own FSDP class: whole weights and optimizer state out, and in again."""
    from torch.distributed.fsdp import FullStateDictConfig, StateDictType
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    tsm = initialise(config)
    model = FSDP(tsm.transform(make("llama"), load_state_dict_from_rank0=True), use_orig_params=True)
    opt = optimizer_of(model)
    train(tsm, model, opt, (0, 1))
    only_first = FullStateDictConfig(rank0_only=True, offload_to_cpu=True, translate_on_save=False)
    with FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT, only_first):
        first = (model.state_dict(), FSDP.optim_state_dict(model, opt))
    with FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT):
        kept = (model.state_dict(), FSDP.optim_state_dict(model, opt))
    losses = train(tsm, model, opt, (2, 3))
    with FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT):
        model.load_state_dict(kept[0])
        opt.load_state_dict(FSDP.optim_state_dict_to_load(model, opt, kept[1]))
    again = train(tsm, model, opt, (2, 3))
    sharded = all(hasattr(value, "full_tensor") for value in model.state_dict().values())
    if rank != 0:
        first = tuple(map(len, first))
    return losses, again, first, sharded, model.clip_grad_norm_(1e9).item(), model.rank, dist.get_world_size(model.process_group)


def test_torchs_own_class_leads_to_hybrid_sharding(worlds):
    found = worlds(4).run(with_torchs_class, {"tensor_parallel_degree": 2, "hybrid_shard_degree": 2})
    for rank, (losses, again, first, sharded, norm, shard_rank, shards) in enumerate(found):
        assert losses == again and sharded and norm > 0 and (shard_rank, shards) == (rank // 2, 2)
        assert rank == 0 or first == (0, 0)
    weights, states = found[0][2]
    expected = alone("llama", False, (0, 1))[1]
    assert zoo.difference(weights, expected) < BOUND
    assert states["state"]["lm_head.weight"]["exp_avg"].shape == (32, 16)


def test_torchs_own_class_stays_outside_of_a_job(worlds):
    assert worlds(1).run(outside) == ["FullyShardedDataParallel"]


def outside(rank):
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    tsm = initialise({})
    tsm.state.reset()
    with pytest.raises(Exception):
        # torch's class refuses this machine's CPU, which it does in its own constructor.
        FSDP(torch.nn.Linear(2, 2))
    return type(FSDP.__new__(FSDP)).__name__


def summoned(rank, config):
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    tsm = initialise(config)
    model = prepare(tsm, "llama", False)
    opt = optimizer_of(model)
    train(tsm, model, opt, (0,))
    before, gradient = whole(model), model.lm_head.weight.grad.full_tensor()
    with FSDP.summon_full_params(model, with_grads=True):
        inside = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        same_gradient = torch.equal(model.lm_head.weight.grad, gradient)
        with torch.no_grad():
            model.lm_head.weight.mul_(2)
    doubled = whole(model)
    with FSDP.summon_full_params(model, writeback=False), torch.no_grad():
        model.lm_head.weight.zero_()
    with FSDP.summon_full_params(model, recurse=False, writeback=False):
        layer, head = model.model.layers[0].mlp.up_proj.weight, model.lm_head.weight
        own_only = hasattr(layer, "full_tensor") and not hasattr(head, "full_tensor")
    with FSDP.summon_full_params(model, writeback=False, rank0_only=True, offload_to_cpu=True):
        on_first = not any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    try:
        with FSDP.summon_full_params(model, rank0_only=True):
            refused = ""
    except NotImplementedError as error:
        refused = str(error)
    after = whole(model)
    learns = train(tsm, model, opt, (1,))
    return before, inside, doubled, after, (same_gradient, own_only, on_first, refused, learns)


@pytest.mark.parametrize("config", [{"hybrid_shard_degree": 2}, {"hybrid_shard_degree": 2, "tensor_parallel_degree": 2}, {"hybrid_shard_degree": 1}])
def test_summoned_parameters_are_whole_and_written_back(worlds, config):
    for rank, (before, inside, doubled, after, others) in enumerate(worlds(4).run(summoned, config)):
        same_gradient, own_only, on_first, refused, (loss,) = others
        assert zoo.difference(inside, before) == 0 and set(inside) == set(before)
        assert torch.equal(doubled["lm_head.weight"], 2 * before["lm_head.weight"]) and zoo.difference(after, doubled) == 0
        assert same_gradient and own_only and on_first == (rank == 0) and "writeback and rank0_only" in refused and loss > 0
