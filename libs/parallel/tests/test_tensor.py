"""Each distributed class against an ordinary module with the gathered weights: outputs, input and weight gradients."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from trainyard_parallel.errors import SMPConfigError, SMPRuntimeError
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


def slopes(size):
    distance = (torch.arange(size) - torch.arange(size)[:, None]).abs()
    return -(2.0 ** (-8 * torch.arange(1, 5) / 4))[:, None, None] * distance


def attention_reference(weights, x, mask, causal, prefix="", cross=None, alibi=False):
    h = norm(prefix, x, "pre_layernorm", weights)
    sources = (("query", h), ("key", h if cross is None else cross), ("value", h if cross is None else cross))
    q, k, v = (linear(weights, f"{prefix}{n}", at).unflatten(-1, (4, 4)).transpose(1, 2) for n, at in sources)
    bias = mask + (slopes(x.shape[1]) if alibi else 0) + (torch.full((x.shape[1],) * 2, -1e30, dtype=x.dtype).triu(1) if causal else 0)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return norm(prefix, x + linear(weights, f"{prefix}dense", out.transpose(1, 2).flatten(2)), "layernorm", weights)


def mlp_reference(weights, x, activation=F.gelu, prefix=""):
    h = activation(linear(weights, f"{prefix}dense1", norm(prefix, x, "pre_layernorm", weights)))
    return norm(prefix, x + linear(weights, f"{prefix}dense2", h), "layernorm", weights)


def layer_reference(weights, x, mask, causal, prefix="", cross=None, alibi=False):
    x = attention_reference(weights, x, mask, causal, f"{prefix}attention.", alibi=alibi)
    if cross is not None:
        x = attention_reference(weights, x, mask, False, f"{prefix}crossattention.", cross)
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
    "layer with alibi": (
        lambda nn_: nn_.DistributedTransformerLayer(**SHAPE, intermediate_size=32, causal_mask_size=8, use_alibi=True),
        lambda w, x, m: layer_reference(w, x, m, True, alibi=True),
    ),
    # The cross states are three times the input.
    "cross": (
        lambda nn_: nn_.DistributedTransformerLayer(**SHAPE, intermediate_size=32, causal_mask_size=8, add_cross_attention=True),
        lambda w, x, m: layer_reference(w, x, m, True, cross=3 * x),
    ),
    "transformer": (
        lambda nn_: nn_.DistributedTransformer(2, **SHAPE, intermediate_size=32),
        lambda w, x, m: layer_reference(w, layer_reference(w, x, m, False, "seq_layers.0."), m, False, "seq_layers.1."),
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
    out = module((x, 3 * x, inputs[1], inputs[1]) if case == "cross" else inputs)
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
        mlp.layernorm is None and mlp.pre_layernorm is not None,
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


def language_model(rank, prescaled, options):
    smp = fresh({"tensor_parallel_degree": 2, "ddp": True, "prescaled_batch": prescaled})
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(5)
    sizes = {"num_layers": 2, **SHAPE, "intermediate_size": 32, "vocab_size": 32, "num_positions": 8, "causal_mask_size": 8}
    module = smp.nn.DistributedTransformerLMHead(**sizes, **options)
    whole = {name: value.clone().requires_grad_() for name, value in gathered(module).items()}
    ids_all = torch.randint(32, (4, 6))
    hidden_all = (torch.rand(4, 6) < 0.2).long()
    hidden_all[:, 0] = 0
    part = (lambda t: t) if prescaled else (lambda t: t.chunk(2)[smp.tp_rank()])
    ids = part(ids_all)
    loss, logits = module((ids, part(hidden_all), None, None, ids))
    loss.backward()

    x = F.embedding(ids_all, whole["word_embedding.weight"]) + whole["position_embedding.weight"][:6]
    x = norm("", x, "embedding_layernorm", whole)
    mask = hidden_all[:, None, None] * -1e30
    for i in range(2):
        x = layer_reference(whole, x, mask, True, f"transformer.seq_layers.{i}.")
    expected = norm("", x, "layernorm", whole) @ whole["word_embedding.weight"].t()
    losses = [F.cross_entropy(e[:, :-1].flatten(0, 1), i[:, 1:].flatten()) for e, i in ((expected, ids_all), (part(expected), ids))]
    losses[0].backward()
    gradient, split = module.word_embedding.weight.grad, hasattr(module.word_embedding.weight, "_smp_split")
    if split:
        gradient = movement.all_gather(gradient, 1) / (1 if prescaled else 2)
    elif not prescaled:
        gradient = movement.all_reduce(gradient) / 2
    names = dict(module.named_parameters(remove_duplicate=False))
    return (
        worst(logits, part(expected)),
        worst(loss, losses[1]),
        worst(gradient, whole["word_embedding.weight"].grad),
        float(names["lm_head.weight"] is not names["word_embedding.weight"]),
        float(split != options.get("distribute_embedding", False)),
    )


@pytest.mark.parametrize("prescaled", [False, True])
@pytest.mark.parametrize("options", [{}, {"pre_layernorm": True, "post_layernorm": False, "distribute_embedding": True}])
def test_a_language_model_equals_the_reference(worlds, prescaled, options):
    for errors in worlds(2).run(language_model, prescaled, options):
        assert max(errors) <= 1e-12, errors


def randomness(rank):
    smp = fresh({"tensor_parallel_degree": 2, "ddp": True, "prescaled_batch": True})
    torch.manual_seed(5)
    layer = smp.nn.DistributedAttentionLayer(**{**SHAPE, "attention_dropout_prob": 0.5})
    smp.set_activation_checkpointing(layer)
    x = torch.ones(2, 6, 16, requires_grad=True)
    seen = []
    layer.dense.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    layer((x, None)).sum().backward()
    # Equal values everywhere, so heads differ by what dropout left of them.
    kept = seen[0] / layer.value(layer.pre_layernorm(x) if layer.pre_layernorm else x)
    return kept.reshape(-1).tolist(), torch.equal(seen[0], seen[1]), float(torch.rand(()))


def test_dropout_differs_in_split_regions_and_nowhere_else(worlds):
    (first, replayed, after), (second, also, after_too) = worlds(2).run(randomness)
    assert replayed and also and after == after_too
    assert first != pytest.approx(second)


def test_packed_attention_is_ordinary_attention():
    import smdistributed.modelparallel.torch as smp

    torch.manual_seed(3)
    qkv = torch.randn(2, 5, 3, 4, 8, dtype=torch.float64)
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    mask = torch.randn(2, 1, 1, 5, dtype=torch.float64)
    ahead = torch.full((5, 5), -1e300, dtype=torch.float64).triu(1)
    for causal in (False, True):
        for options, scale in (({}, 8**-0.5), ({"scale_attn_by_layer_idx": True, "layer_idx": 2}, 8**-0.5 / 3), ({"scale": 0.1}, 0.1)):
            layer = smp.nn.FlashAttentionLayer(attention_dropout_prob=0.0, **options)
            scores = q @ k.transpose(-1, -2) * scale + mask + (ahead if causal else 0)
            assert worst(layer(qkv, mask, causal), scores.softmax(-1) @ v) < 1e-14
    biased = smp.nn.FlashAttentionLayer(0.0, use_alibi=True)(qkv)
    scores = q @ k.transpose(-1, -2) * 8**-0.5 + slopes(5)
    assert worst(biased, scores.softmax(-1) @ v) < 1e-14


# Documented defaults: https://sagemaker.readthedocs.io/en/stable/api/training/smp_versions/latest/smd_model_parallel_pytorch_tensor_parallel.html
HEADS = {"num_attention_heads": 32, "attention_head_size": 32, "hidden_size": 1024, "attention_dropout_prob": 0.1}
NORMS = {"hidden_dropout_prob": 0.1, "layernorm_epsilon": 1e-5, "initializer_range": 0.02, "use_normal_initialization": False}
ORDER = {"pre_layernorm": False, "post_layernorm": True}
DEFAULTS = {
    "DistributedEmbedding": {
        "padding_idx": None, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False, "sparse": False, "_weight": None,
        "initializer_range": 0.02, "_skip_allgather": False, "_skip_scatter_and_merge": False,
    },
    "DistributedAttentionLayer": {**HEADS, **NORMS, **ORDER, "cross_attention": False, "causal_mask_size": None},
    "DistributedTransformerOutputLayer": {
        **NORMS, **ORDER, "hidden_size": 1024, "intermediate_size": 4096, "activation": "gelu", "fp32_residual_addition": False,
    },
    "DistributedTransformerLayer": {
        **HEADS, **NORMS, **ORDER, "intermediate_size": 4096, "activation": "gelu", "causal_mask_size": None,
        "add_cross_attention": False, "use_alibi": False, "alibi_bias_max": 8,
    },
    "DistributedTransformer": {"num_layers": 12},
    "DistributedTransformerLMHead": {
        **HEADS, **NORMS, **ORDER, "num_layers": 12, "intermediate_size": 4096, "vocab_size": 30522, "num_positions": 1024,
        "activation": "gelu", "num_token_types": 0, "causal_mask_size": None, "add_cross_attention": False, "add_lm_head": True,
    },
    "FlashAttentionLayer": {
        "attention_dropout_prob": 0.1, "attention_head_size": None, "scale_attention_scores": True, "layer_idx": None,
        "scale_attn_by_layer_idx": False, "scale": None, "triton_flash_attention": False, "use_alibi": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DEFAULTS)
def test_signatures_have_the_documented_defaults(name):
    import smdistributed.modelparallel.torch as smp

    found = inspect.signature(getattr(smp.nn, name).__init__).parameters
    assert {key: found[key].default for key in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize("name", ["gpt2", "bert", "roberta", "gptj", "gptneo", "gptneox"])
def test_translate_functions_have_the_documented_names(name):
    import smdistributed.modelparallel.torch as smp

    module = getattr(smp.nn.huggingface, name)
    assert module.__dict__[f"translate_state_dict_to_hf_{name}"]({}, max_seq_len=None) == {}
    assert module.__dict__[f"translate_hf_state_dict_to_smdistributed_{name}"]({}) == {}
    assert module.translate_hf_state_dict_to_smdistributed is module.translate_state_dict_to_smdistributed


def test_causal_masks_of_older_models_are_added_on_request():
    import smdistributed.modelparallel.torch as smp

    theirs = smp.nn.huggingface.gpt2.translate_state_dict_to_hf_gpt2(
        {"transformer.seq_layers.1.attention.pre_layernorm.weight": torch.ones(2)}, max_seq_len=3
    )
    assert set(theirs) == {"transformer.h.1.ln_1.weight", "transformer.h.1.attn.bias", "transformer.h.1.attn.masked_bias"}
    assert torch.equal(theirs["transformer.h.1.attn.bias"][0, 0], torch.ones(3, 3).tril().bool())
    ours = smp.nn.huggingface.gpt2.translate_hf_state_dict_to_smdistributed_gpt2(theirs)
    assert set(ours) == {"transformer.seq_layers.1.attention.pre_layernorm.weight"}


def test_weights_that_depend_on_heads_say_so():
    import smdistributed.modelparallel.torch as smp

    smp.state.module_manager.heads.pop("gptneox", None)
    theirs = {"gpt_neox.layers.0.attention.query_key_value.bias": torch.arange(12)}
    translate = smp.nn.huggingface.gptneox.translate_hf_state_dict_to_smdistributed_gptneox
    with pytest.raises(SMPRuntimeError, match="needs num_attention_heads"):
        translate(theirs)
    ours = translate(theirs, num_attention_heads=2)
    assert ours["transformer.seq_layers.0.attention.key.bias"].tolist() == [2, 3, 8, 9]
