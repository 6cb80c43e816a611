"""Each distributed class against an ordinary module with the gathered weights: outputs, input and weight gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from trainyard_parallel.errors import SMPConfigError
from trainyard_parallel.tensor import movement
from training import fresh

SHAPE = {"num_attention_heads": 4, "attention_head_size": 4, "hidden_size": 16, "attention_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
BLOCK = {"hidden_size": 16, "intermediate_size": 32, "hidden_dropout_prob": 0.0}


def norm(layer, x, key, weights):
    name = f"{layer}{key}"
    if f"{name}.weight" not in weights:
        return x
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def linear(weights, name, x):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def attention_reference(weights, x, mask, causal, prefix=""):
    h = norm(prefix, x, "pre", weights)
    q, k, v = (linear(weights, f"{prefix}{n}", h).unflatten(-1, (4, 4)).transpose(1, 2) for n in ("query", "key", "value"))
    bias = mask + (torch.full((x.shape[1],) * 2, -1e30, dtype=x.dtype).triu(1) if causal else 0)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(x.shape[0], 4, -1, -1) if causal else bias)
    return norm(prefix, x + linear(weights, f"{prefix}dense", out.transpose(1, 2).flatten(2)), "post", weights)


def mlp_reference(weights, x, activation=F.gelu, prefix=""):
    h = activation(linear(weights, f"{prefix}dense1", norm(prefix, x, "pre", weights)))
    return norm(prefix, x + linear(weights, f"{prefix}dense2", h), "post", weights)


def layer_reference(weights, x, mask, causal, prefix=""):
    x = attention_reference(weights, x, mask, causal, f"{prefix}attention.")
    return mlp_reference(weights, x, prefix=f"{prefix}output.")


CASES = {
    "linear": (lambda nn_: nn_.DistributedLinear(16, 12), lambda w, x, m: F.linear(x, w["weight"], w["bias"])),
    "linear without bias": (lambda nn_: nn_.DistributedLinear(16, 12, bias=False), lambda w, x, m: F.linear(x, w["weight"])),
    "attention pre": (
        lambda nn_: nn_.DistributedAttentionLayer(**SHAPE, causal_mask_size=8, pre_layernorm=True, post_layernorm=False),
        lambda w, x, m: attention_reference(w, x, m, True),
    ),
    "attention post": (lambda nn_: nn_.DistributedAttentionLayer(**SHAPE), lambda w, x, m: attention_reference(w, x, m, False)),
    "output": (lambda nn_: nn_.DistributedTransformerOutputLayer(**BLOCK), lambda w, x, m: mlp_reference(w, x)),
    "output relu": (
        lambda nn_: nn_.DistributedTransformerOutputLayer(**BLOCK, activation="relu", pre_layernorm=True),
        lambda w, x, m: mlp_reference(w, x, F.relu),
    ),
    "layer": (
        lambda nn_: nn_.DistributedTransformerLayer(**SHAPE, intermediate_size=32, causal_mask_size=8),
        lambda w, x, m: layer_reference(w, x, m, True),
    ),
    "transformer": (
        lambda nn_: nn_.DistributedTransformer(2, **SHAPE, intermediate_size=32),
        lambda w, x, m: layer_reference(w, layer_reference(w, x, m, False, "0."), m, False, "1."),
    ),
}


def against_reference(rank, case, tp, optimize, prescaled):
    smp = fresh({"tensor_parallel_degree": tp, "ddp": True, "optimize": optimize, "prescaled_batch": prescaled})
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5)
    make, reference = CASES[case]
    module = make(smp.nn)
    whole = smp.state.topology and {
        name: value.requires_grad_() for name, value in copy.deepcopy(gathered(module)).items()
    }
    x_all = torch.randn(2 * tp, 6, 16)
    mask_all = torch.where(torch.rand(2 * tp, 1, 1, 6) < 0.2, -1e30, 0.0)
    mask_all[..., 0] = 0
    weight = torch.randn(12 if "linear" in case else 16)
    part = (lambda t: t) if prescaled else (lambda t: t.chunk(tp)[smp.tp_rank()])

    x = part(x_all).clone().requires_grad_()
    inputs = x if case.startswith(("linear", "output")) else (x, part(mask_all))
    out = module(inputs)
    out = out[0] if isinstance(out, tuple) else out
    ((out * weight).square().sum()).backward()

    x_ref = x_all.clone().requires_grad_()
    out_ref = reference(whole, x_ref, mask_all)
    ((out_ref * weight).square().sum()).backward()

    errors = {"output": worst(out, part(out_ref)), "input": worst(x.grad, part(x_ref.grad))}
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        if hasattr(parameter, "_smp_split"):
            errors[name] = worst(movement.all_gather(gradient, parameter._smp_split), whole[name].grad)
        else:
            if not prescaled:
                gradient = movement.all_reduce(gradient)
            errors[name] = worst(gradient, whole[name].grad)
    return errors


def gathered(module):
    from trainyard_parallel.tensor import gather_state

    return gather_state(module, {name: p.detach() for name, p in module.named_parameters()})


def worst(found, expected):
    # The largest element may be zero in theory (bias of a key): then noise is compared with the scale 1.
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1.0)).item()


@pytest.mark.parametrize("tp, optimize, prescaled", [(2, "memory", False), (2, "speed", True), (4, "speed", False), (4, "memory", True)])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_equal_the_reference(worlds, case, tp, optimize, prescaled):
    for errors in worlds(tp).run(against_reference, case, tp, optimize, prescaled):
        assert max(errors.values()) <= 1e-12, errors


def embedding(rank, prescaled):
    smp = fresh({"tensor_parallel_degree": 2, "ddp": True, "prescaled_batch": prescaled})
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5)
    module = smp.nn.DistributedEmbedding(10, 8, padding_idx=3)
    table = gathered(module)["weight"].clone().requires_grad_()
    ids_all = torch.randint(10, (4, 5))
    ids = ids_all if prescaled else ids_all.chunk(2)[smp.tp_rank()]
    weight = torch.randn(8)
    (module(ids) * weight).square().sum().backward()
    (F.embedding(ids_all, table, 3) * weight).square().sum().backward()
    return worst(movement.all_gather(module.weight.grad, 1), table.grad), worst(module(ids), F.embedding(ids, table))


@pytest.mark.parametrize("prescaled", [False, True])
def test_embedding_equals_the_reference(worlds, prescaled):
    for found in worlds(2).run(embedding, prescaled):
        assert max(found) <= 1e-12


class Original(nn.Module):
    def __init__(self, width, inner, bias=True):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x, scale=1.0):
        return self.down(F.gelu(self.up(x))) * scale


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.mlp, self.odd = nn.Linear(16, 16), Original(16, 32), nn.Linear(7, 3)

    def forward(self, x):
        return self.mlp(self.first(x))


def registered(rank):
    smp = fresh({"tensor_parallel_degree": 2, "ddp": True})
    torch.set_default_dtype(torch.float64)
    smp.tp_register_with_module(
        Original,
        smp.nn.DistributedTransformerOutputLayer,
        init_hook=lambda width, inner, bias=True: ((width, inner), {"hidden_dropout_prob": 0.0, "pre_layernorm": True}),
        forward_hook=lambda x, scale=1.0: ((x,), {}),
        return_hook=lambda out: out * 2,
    )
    with smp.tensor_parallelism(post_layernorm=False):
        net = Net()
    smp.set_tensor_parallelism(net.first, False)
    model = smp.DistributedModel(net)
    mlp = model.get_module().mlp
    x = torch.ones(2, 3, 16)
    doubled = torch.equal(model(x), 2 * type(mlp).forward(mlp, net.first(x)))
    scaled = {name for name, _ in model.scaled_batch_reducer_named_parameters()}
    return (
        [type(m).__name__ for m in (net.first, mlp, net.odd)],
        mlp.post is None and mlp.pre is not None,
        doubled,
        sorted(scaled),
        model.is_distributed_parameter(mlp.dense1.weight) and not model.is_distributed_parameter(net.first.weight),
    )


def test_registered_modules_are_replaced_with_hooks_and_keywords(worlds):
    for kinds, keywords, doubled, scaled, queries in worlds(2).run(registered):
        assert kinds == ["Linear", "DistributedTransformerOutputLayer", "Linear"]
        assert keywords and doubled and queries
        assert scaled == ["mlp.dense1.bias", "mlp.dense1.weight", "mlp.dense2.weight"]


def indivisible(rank):
    smp = fresh({"tensor_parallel_degree": 4, "ddp": True})
    try:
        smp.nn.DistributedAttentionLayer(num_attention_heads=6)
    except SMPConfigError as error:
        return str(error)


def test_heads_that_do_not_divide_are_refused(worlds):
    assert worlds(4).run(indivisible)[0].startswith("num_attention_heads is 6, which tensor_parallel_degree 4 must divide")


def shares(rank):
    smp = fresh({"tensor_parallel_degree": 2, "ddp": True})
    with smp.tensor_parallelism():
        net = zoo.make("gpt", tied=False)
    before = sum(p.numel() for p in net.parameters())
    model = smp.DistributedModel(net)
    return len(model.distributed_modules()), sum(p.numel() for p in model.local_parameters()) / before


def test_a_rank_holds_about_half_of_the_weights(worlds):
    for modules, share in worlds(2).run(shares):
        # Two embeddings, a head, and six linear layers in each of four blocks.
        assert modules == 3 + 6 * 4 and 0.5 < share < 0.6
