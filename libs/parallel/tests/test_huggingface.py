"""Hugging Face models, unchanged, as two pipeline stages: losses and weights equal one process."""

import copy

import pytest
import torch

import zoo
from training import fresh

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZES = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TOKENS = {"bos_token_id": 0, "eos_token_id": 1}


def make(name):
    t = transformers
    if name == "gpt2":
        config = t.GPT2Config(
            vocab_size=32, n_positions=16, n_embd=16, n_layer=4, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **TOKENS
        )
        kind = t.GPT2LMHeadModel
    elif name == "llama":
        config, kind = t.LlamaConfig(**SIZES, num_key_value_heads=2, **TOKENS), t.LlamaForCausalLM
    elif name == "bert":
        config, kind = t.BertConfig(**SIZES, **NO_DROPOUT), t.BertForMaskedLM
    else:
        config, kind = t.GPTNeoXConfig(**SIZES, **TOKENS), t.GPTNeoXForCausalLM
    config.use_cache = False
    torch.manual_seed(1)
    return kind(config).double()


def compare(rank, name, config):
    smp = fresh(config)
    torch.set_default_dtype(torch.float64)
    net = make(name)
    alone = copy.deepcopy(net)
    model = smp.DistributedModel(net)
    opt = smp.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1))
    opt_alone = torch.optim.SGD(alone.parameters(), lr=0.1)

    @smp.step
    def train_step(model, inputs):
        output = model(**inputs)
        model.backward(output["loss"])
        return output

    worst = 0.0
    for step in range(3):
        ids, _ = zoo.data("gpt", step)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        opt.zero_grad()
        opt_alone.zero_grad()
        output = train_step(model, inputs)
        opt.step()
        expected = alone(**inputs)
        expected.loss.backward()
        opt_alone.step()
        logits = output["logits"].concat()
        worst = max(worst, (logits - expected.logits).abs().max().item())
        # These models compute the loss itself in float32.
        assert abs(output["loss"].reduce_mean().item() - expected.loss.item()) < 1e-5
    reference = alone.state_dict()
    return worst, max((value - reference[key]).abs().max().item() for key, value in model.state_dict().items()), type(output).__name__


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "neox"])
def test_models_run_as_two_stages(worlds, name):
    for logits, weights, kind in worlds(2).run(compare, name, {"partitions": 2, "microbatches": 3}):
        # Gradients start from a float32 loss, equal on both sides up to its rounding.
        assert logits <= 1e-7 and weights <= 1e-7, (logits, weights)
        assert kind.endswith("Output") or kind.endswith("WithCrossAttentions") or kind.endswith("WithPast")
