"""Hugging Face models whose blocks are split over ranks: losses and weights equal one process, in float64."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

import zoo
from training import fresh, own_slice

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

BOUND = 1e-11
SIZES = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT = {"vocab_size": 32, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
TOKENS = {"bos_token_id": 0, "eos_token_id": 1}
BERT = {**SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TP2, PP2 = {"tensor_parallel_degree": 2, "ddp": True}, {"pipeline_parallel_degree": 2}
REPLACEMENT = {"bert": "AdaptedEncoder", "roberta": "AdaptedEncoder"}


def in_own_type(self, query, key, value, attention_mask=None, scale=None):
    """The attention of GPT-J and GPT-Neo without their rounding to float32."""
    return F.scaled_dot_product_attention(query, key, value, self.local(attention_mask, query), scale=scale), None


def make(name):
    t = transformers
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(1)
    if name.startswith("gpt2"):
        options = {"tie_word_embeddings": "untied" not in name, "scale_attn_by_inverse_layer_idx": "scaled" in name}
        net = t.GPT2LMHeadModel(t.GPT2Config(**GPT, **TOKENS, **options))
    elif name == "gptj":
        net = t.GPTJForCausalLM(t.GPTJConfig(**GPT, **TOKENS, rotary_dim=2, tie_word_embeddings=False))
    elif name == "gptneo":
        config = t.GPTNeoConfig(
            vocab_size=32, hidden_size=16, num_layers=2, num_heads=4, max_position_embeddings=16, window_size=3,
            attention_types=[[["global", "local"], 1]], resid_dropout=0, embed_dropout=0, attention_dropout=0, **TOKENS,
        )  # fmt: skip
        net = t.GPTNeoForCausalLM(config)
    elif name.startswith("neox"):
        config = t.GPTNeoXConfig(**SIZES, **TOKENS, use_parallel_residual="serial" not in name, max_position_embeddings=16)
        config.rope_parameters["partial_rotary_factor"] = 0.5
        net = t.GPTNeoXForCausalLM(config)
    elif name == "bert":
        net = t.BertForMaskedLM(t.BertConfig(**BERT))
    else:
        net = t.RobertaForMaskedLM(t.RobertaConfig(**BERT, **TOKENS, max_position_embeddings=16, type_vocab_size=1))
    net.config.use_cache = False
    torch.set_default_dtype(torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            # Biases start at zero, which would hide one that is lost.
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net.double()


def without_rounding(net):
    """A reference that does not round to float32 inside its attention."""
    for module in net.modules():
        kind = type(module).__name__
        if kind in ("GPTJAttention", "GPTNeoSelfAttention"):
            scale = 1.0 if kind == "GPTNeoSelfAttention" else None

            def local(mask, query, module=module, kind=kind):
                size = query.shape[-2]
                seen = torch.ones(size, size, dtype=torch.bool).tril()
                if kind == "GPTNeoSelfAttention":
                    seen = module.bias[0, 0, :size, :size]
                if mask is not None:
                    mask = mask if mask.dtype == torch.bool else mask >= 0
                    seen = seen & mask
                return seen

            module.local = local
            module._attn = lambda q, k, v, mask=None, module=module, scale=scale: in_own_type(module, q, k, v, mask, scale)
    return net


def batch(step):
    ids, labels = zoo.data("gpt", step)
    mask = torch.ones_like(ids)
    mask[::3, -2:] = 0
    return ids, mask, labels


def optimizer_of(parameters):
    # A larger epsilon than usual: key biases have no true gradient, and AdamW would step along rounding noise.
    return torch.optim.AdamW(parameters, lr=0.01, eps=1e-3, foreach=False)


def compare(rank, name, config, keywords):
    smp = fresh(config)
    alone = without_rounding(make(name))
    opt_alone = optimizer_of(alone.parameters())
    with smp.tensor_parallelism(**keywords):
        net = make(name)
    start = {key: value.clone() for key, value in net.state_dict().items()}
    model = smp.DistributedModel(net)
    opt = smp.DistributedOptimizer(optimizer_of(model.parameters()))
    kinds = {type(module).__name__.removeprefix("FSDP") for module in model.modules()}
    assert REPLACEMENT.get(name, "AdaptedModel") in kinds and "DistributedTransformerLayer" in kinds, kinds

    @smp.step
    def train_step(model, ids, mask, labels):
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
        loss = zoo.token_loss(output["logits"], labels)
        model.backward(loss)
        return output, loss

    worst = 0.0
    for step in range(3):
        opt.zero_grad()
        opt_alone.zero_grad()
        output, loss = train_step(model, *(own_slice(t, smp) for t in batch(step)))
        opt.step()
        ids, mask, labels = batch(step)
        expected = alone(input_ids=ids, attention_mask=mask, labels=labels)
        zoo.token_loss(expected.logits, labels).backward()
        opt_alone.step()
        found = output["logits"].concat()
        worst = max(worst, ((found - own_slice(expected.logits, smp)).abs().max() / expected.logits.abs().max()).item())
        mean = output["loss"].reduce_mean()
        dist.all_reduce(mean)
        # Theirs is computed in float32.
        assert abs(mean.item() / smp.size() - expected.loss.item()) < 1e-5
    (to_hf, from_hf), = smp.state.module_manager.translate_functions
    whole = model.state_dict()
    there = to_hf(whole)
    back = from_hf(there)
    assert set(back) == set(whole) and all(torch.equal(back[key], whole[key]) for key in whole)
    again = to_hf(from_hf(start))
    assert set(again) == set(start) and all(torch.equal(again[key], start[key]) for key in start)
    copy.deepcopy(make(name)).load_state_dict(there)
    return worst, zoo.difference(there, alone.state_dict())


def check(world, name, config, **keywords):
    for logits, weights in world.run(compare, name, {"microbatches": 2, **config}, keywords):
        assert logits <= BOUND and weights <= BOUND, (logits, weights)


MODELS = ["gpt2", "gpt2 untied scaled", "gptj", "gptneo", "neox", "neox serial", "bert", "roberta"]


@pytest.mark.parametrize("name", MODELS)
def test_models_on_two_tensor_parallel_ranks(worlds, name):
    check(worlds(2), name, {**TP2, "prescaled_batch": name in ("gptj", "bert", "gpt2 untied scaled")})


@pytest.mark.parametrize("name", ["gpt2", "gptj", "neox", "bert"])
def test_models_with_pipeline_and_tensor_parallelism(worlds, name):
    check(worlds(4), name, {**TP2, **PP2, "prescaled_batch": name == "neox"})


@pytest.mark.parametrize("config", [{**TP2}, {**TP2, "prescaled_batch": True}, {**TP2, "shard_optimizer_state": True}])
def test_models_with_data_and_tensor_parallelism(worlds, config):
    check(worlds(4), "gpt2", {**config, "microbatches": 3})


def test_models_with_sharded_data_and_tensor_parallelism(worlds):
    config = {**TP2, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100, "sdp_gradient_clipping": 1e9}
    check(worlds(4), "gptj", {**config, "microbatches": 3}, distribute_embedding=True)


def test_a_split_embedding_and_head(worlds):
    check(worlds(2), "gpt2", TP2, distribute_embedding=True, fused_softmax=True, fused_bias_gelu=True)


def test_the_distributed_transformer_on_one_rank(worlds):
    check(worlds(1), "gptj", {"microbatches": 3})


def saved(rank, name, config, path):
    """Saves a model in full; then loads what Hugging Face would have saved."""
    smp = fresh(config)
    with smp.tensor_parallelism():
        net = make(name)
    model = smp.DistributedModel(net)

    @smp.step
    def evaluate(model, ids):
        return model(input_ids=ids)["logits"]

    with torch.no_grad():
        evaluate(model, batch(0)[0])
    smp.save_checkpoint(path, "full", False, model)
    if rank == 0:
        torch.save({key: 2 * value for key, value in make(name).state_dict().items()}, f"{path}/theirs")
    smp.barrier()
    smp.resume_from_checkpoint(path, "theirs", partial=False)
    with torch.no_grad():
        logits = evaluate(model, batch(0)[0]).concat()
    return logits


@pytest.mark.parametrize("name, config", [("gpt2", {**TP2, **PP2}), ("neox", TP2), ("bert", TP2)])
def test_full_checkpoints_are_in_hugging_faces_form(worlds, tmp_path, name, config):
    found = worlds(4 if "pipeline_parallel_degree" in config else 2).run(saved, name, config, str(tmp_path))
    expected = make(name)
    for key, value in torch.load(tmp_path / "full").items():
        assert torch.equal(value, expected.state_dict()[key])
    expected.load_state_dict({key: 2 * value for key, value in expected.state_dict().items()})
    logits = expected(input_ids=batch(0)[0]).logits
    for own in found:
        assert ((own - logits).abs().max() / logits.abs().max()).item() < BOUND


def created(rank, name, config, is_delayed):
    smp = fresh({**config, "delayed_parameter_initialization": is_delayed})
    torch.manual_seed(1)
    options = {"attention_in_fp32": False, "query_key_layer_scaling": True, "flash_attention": True, "fused_dropout": True}
    with smp.model_creation(tensor_parallelism=True, dtype=torch.float32, zero_init=False, distribute_embedding=True, **options):
        net = transformers.AutoModelForCausalLM.from_config(config_of(name))
    has_memory = not next(net.parameters()).is_meta
    model = smp.DistributedModel(net)

    @smp.step
    def evaluate(model, ids):
        return model(input_ids=ids)["logits"]

    with torch.no_grad():
        evaluate(model, batch(0)[0])
    assert model.module.module.module.transformer.seq_layers is model.get_module().transformer.seq_layers
    (to_hf, _), = smp.state.module_manager.translate_functions
    return has_memory, to_hf(model.state_dict())


def config_of(name):
    return make(name).config


@pytest.mark.parametrize("name, config", [("gpt2", {**TP2, **PP2}), ("neox", TP2)])
def test_models_that_are_created_without_memory_have_the_same_weights(worlds, name, config):
    world = worlds(4 if "pipeline_parallel_degree" in config else 2)
    plain, delayed = (world.run(created, name, config, is_delayed) for is_delayed in (False, True))
    for (has_memory, expected), (still, found) in zip(plain, delayed):
        assert has_memory and not still and zoo.difference(found, expected) == 0


def indivisible(rank):
    smp = fresh(TP2)
    config = transformers.BertConfig(**{**BERT, "num_attention_heads": 1})
    torch.manual_seed(1)
    with smp.tensor_parallelism():
        net = transformers.BertForMaskedLM(config).double().eval()
    alone = copy.deepcopy(net)
    with pytest.warns(UserWarning, match="bert.encoder stays whole: tensor_parallel_degree 2 does not divide num_attention_heads 1"):
        model = smp.DistributedModel(net)
    ids = batch(rank)[0]
    kinds = {type(module).__name__ for module in model.modules()}
    worst = (model(input_ids=ids).logits - alone(input_ids=ids).logits).abs().max().item()
    return "AdaptedEncoder" in kinds, "DistributedLinear" in kinds, worst, smp.state.module_manager.translate_functions


def test_blocks_that_do_not_divide_stay_whole_and_their_layers_are_split(worlds):
    for is_replaced, is_split, worst, translators in worlds(2).run(indivisible):
        assert not is_replaced and is_split and worst < BOUND and translators == []


def crossed(rank):
    smp = fresh({**TP2, "prescaled_batch": True})
    torch.manual_seed(1)
    with smp.tensor_parallelism():
        net = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT, **TOKENS, add_cross_attention=True)).double()
    alone = copy.deepcopy(net)
    model = smp.DistributedModel(net)
    ids, mask, _ = batch(0)
    states, seen = torch.randn(len(ids), 5, 16, dtype=torch.float64), torch.ones(len(ids), 5, dtype=torch.long)
    seen[::2, 3:] = 0
    found = []
    for each in (model, alone):
        source = states.clone().requires_grad_()
        inputs = {"encoder_hidden_states": source, "encoder_attention_mask": seen}
        logits = each(input_ids=ids, attention_mask=mask, **inputs).logits
        logits.square().sum().backward()
        found.append((logits.detach(), source.grad))
    plain = (model(input_ids=ids).logits - alone(input_ids=ids).logits).abs().max().item()
    return plain, *(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*found))


def test_cross_attention_of_gpt2(worlds):
    for errors in worlds(2).run(crossed):
        assert max(errors) < BOUND, errors
