"""Version 2: delayed parameters and activation offloading change memory only."""

import functools

import pytest
import torch
import torch.distributed as dist
from torch import nn

import test_v2
import zoo
from live import Live

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


def wrap(model, layer, **options):
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    policy = functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={layer})
    return FSDP(model, auto_wrap_policy=policy, use_orig_params=True, **options)


def delayed(rank, config, tied=False, name="llama"):
    """(whole weights, loss) of a model that was on the meta device; ranks have drawn different numbers before."""
    from torch.sagemaker.delayed_param import DelayedParamIniter

    tsm = test_v2.initialise(config)
    with torch.device("meta"):
        model = test_v2.make(name, tied)
    torch.manual_seed(100 + rank)
    model = tsm.transform(model)
    assert all(parameter.is_meta for parameter in model.parameters())
    torch.manual_seed(5 if rank == 0 else rank)
    initer = DelayedParamIniter(model)
    with initer.validate_params_and_buffers_inited():
        model = wrap(
            model,
            type(model.base_model.layers[0]),
            param_init_fn=initer.get_param_init_fn(),
            post_param_init_fn=initer.get_post_param_init_fn(),
        )
    loss = test_v2.loss_of(model, *(t[:4] for t in zoo.data("gpt", 0))).item()
    if tied:
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return test_v2.whole(model), loss


@pytest.mark.parametrize("name, tied", [("llama", False), ("llama", True), ("neox", False)])
def test_delayed_values_do_not_depend_on_degrees(worlds, name, tied):
    expected, loss = worlds(1).run(delayed, {}, tied, name)[0]
    assert expected["lm_head.weight"].std() > 0
    for ranks, config in ((2, {}), (2, {"tensor_parallel_degree": 2}), (4, {"tensor_parallel_degree": 2, "hybrid_shard_degree": 2})):
        for weights, own in worlds(ranks).run(delayed, config, tied, name):
            assert zoo.difference(weights, expected) == 0
            assert own == pytest.approx(loss, rel=1e-12)


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + self.linear(x).tanh()


class Stack(nn.Module):
    def __init__(self, layers, width):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


def finetuned(rank, width=64, layers=8):
    """Rank 0 has the model, the others get it; a custom initialisation; the peak of the others."""
    from torch.sagemaker.delayed_param import DelayedParamIniter
    from torch.sagemaker.utils.module_utils import empty_module_params, move_buffers_to_device

    test_v2.initialise({})
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(3)
    reference = Stack(layers, width)

    def method(module):
        empty_module_params(module, "cpu")
        move_buffers_to_device(module, "cpu")

    peak = None
    if rank == 0:
        model = wrap(reference, Layer, sync_module_states=True)
    else:
        with torch.device("meta"):
            model = Stack(layers, width)
        initer = DelayedParamIniter(model, method, verbose=True)
        with Live() as live:
            model = wrap(model, Layer, sync_module_states=True, param_init_fn=initer.get_param_init_fn())
        peak = live.peak
        torch.manual_seed(3)
        reference = Stack(layers, width)
    same = zoo.difference(test_v2.whole(model), dict(reference.state_dict())) == 0 if rank else True
    if rank == 0:
        test_v2.whole(model)
    return same, peak, (width + 1) * width * 8


def test_one_rank_has_the_weights_and_others_hold_their_share(worlds):
    (_, _, _), (same, peak, layer) = worlds(2).run(finetuned)
    # Half of eight layers, one whole layer with what FSDP makes of it, and the sum in the making.
    assert same and peak <= (4 + 3) * layer


def refused(rank):
    from torch.sagemaker.delayed_param import DelayedParamIniter

    test_v2.initialise({})
    found = []
    with torch.device("meta"):
        model = Stack(1, 4)
    initer = DelayedParamIniter(model)
    try:
        wrap(model, Layer, param_init_fn=initer.get_param_init_fn())
    except RuntimeError as error:
        found.append(str(error))
    with torch.device("meta"):
        other = DelayedParamIniter(nn.Linear(2, 2))
    try:
        with other.validate_params_and_buffers_inited():
            pass
    except AssertionError as error:
        found.append(str(error))
    return found


def test_what_is_not_initialised_is_named(worlds):
    unknown, left = worlds(1).run(refused)[0]
    assert "(Stack) has parameters of its own but no reset_parameters; give DelayedParamIniter an init_method" in unknown
    assert left == "weight, bias are on the meta device still; pass get_param_init_fn() to FSDP as param_init_fn"


def offloaded(rank, config, is_offloaded, width=64, layers=10):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
        apply_activation_checkpointing,
        offload_wrapper,
    )

    test_v2.initialise(config)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(3)
    model = wrap(Stack(layers, width), Layer)
    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, Layer))
    if is_offloaded:
        model = offload_wrapper(model)
    torch.manual_seed(rank)
    x = torch.randn(512, width)

    def step():
        model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()

    step()
    offloader = model.__dict__.get("_sm_offloader")
    with Live((lambda: offloader.host_bytes) if offloader else lambda: 0) as live:
        step()
    return [p.grad.to_local().clone() for p in model.parameters()], live.peak, 512 * width * 8


def test_offloading_keeps_gradients_and_frees_the_device(worlds):
    config = {"hybrid_shard_degree": 2, "activation_loading_horizon": 2}
    plain = worlds(2).run(offloaded, config, False)
    found = worlds(2).run(offloaded, config, True)
    for (gradients, peak, layer), (others, less, _) in zip(plain, found):
        assert all(torch.equal(a, b) for a, b in zip(gradients, others))
        # Nine inputs that gradients flow to stay, against one in use, two loaded early and one on its way.
        assert less <= peak - (9 - 4 - 1) * layer


def torchs_own(rank):
    """With the setting off, torch's wrapper does what it did."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import offload_wrapper

    test_v2.initialise({"sm_activation_offloading": False})
    model = offload_wrapper(nn.Sequential(nn.Linear(2, 2)))
    seen = []
    original = torch.autograd.graph.saved_tensors_hooks.__enter__
    torch.autograd.graph.saved_tensors_hooks.__enter__ = lambda self: (seen.append(type(self).__name__), original(self))[1]
    try:
        try:
            model(torch.ones(1, 2)).sum().backward()
        except RuntimeError:
            # Pinned memory needs a GPU.
            pass
    finally:
        torch.autograd.graph.saved_tensors_hooks.__enter__ = original
    return seen, "_sm_offloader" in model.__dict__


def test_torchs_offloading_is_there_when_ours_is_off(worlds):
    seen, ours = worlds(1).run(torchs_own)[0]
    assert seen[0] == "save_on_cpu" and not ours
