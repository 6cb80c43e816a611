"""Which classes of transformers are replaced, by what, and with which arguments."""

from trainyard_parallel.huggingface import translate


def openai(config):
    """What GPT-2 and GPT-J name alike."""
    return {
        "num_attention_heads": config.n_head,
        "attention_head_size": config.n_embd // config.n_head,
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_inner or 4 * config.n_embd,
        "attention_dropout_prob": config.attn_pdrop,
        "hidden_dropout_prob": config.resid_pdrop,
        "activation": config.activation_function,
        "layernorm_epsilon": config.layer_norm_epsilon,
        "causal_mask_size": config.n_positions,
        "pre_layernorm": True,
        "post_layernorm": False,
    }


def gpt2(config):
    return {
        **openai(config),
        "add_cross_attention": config.add_cross_attention,
        "scale_attention_scores": config.scale_attn_weights,
        "scale_attn_by_layer_idx": config.scale_attn_by_inverse_layer_idx,
        "attention_in_fp32": config.reorder_and_upcast_attn,
    }


def gpt2_head(config):
    return {
        "num_layers": config.n_layer,
        "vocab_size": config.vocab_size,
        "num_positions": config.n_positions,
        "embedding_dropout_prob": config.embd_pdrop,
    }


def gptj(config):
    return {
        **openai(config),
        "use_qkv_bias": False,
        "use_attn_dense_bias": False,
        "rotary_dim": config.rotary_dim or config.n_embd,
        "parallel_attn_output": True,
        "single_pre_layernorm": True,
    }


def gptj_head(config):
    return {
        "num_layers": config.n_layer,
        "vocab_size": config.vocab_size,
        "embedding_dropout_prob": config.embd_pdrop,
        "use_positional_embedding": False,
        "use_lm_head_bias": True,
    }


def gptneo(config):
    return {
        "num_attention_heads": config.num_heads,
        "attention_head_size": config.hidden_size // config.num_heads,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size or 4 * config.hidden_size,
        "attention_dropout_prob": config.attention_dropout,
        "hidden_dropout_prob": config.resid_dropout,
        "activation": config.activation_function,
        "layernorm_epsilon": config.layer_norm_epsilon,
        "causal_mask_size": config.max_position_embeddings,
        "pre_layernorm": True,
        "post_layernorm": False,
        "use_qkv_bias": False,
        "scale_attention_scores": False,
        "window_size": config.window_size,
        "attention_layers_type": tuple(config.attention_layers),
    }


def gptneo_head(config):
    return {
        "num_layers": config.num_layers,
        "vocab_size": config.vocab_size,
        "num_positions": config.max_position_embeddings,
        "embedding_dropout_prob": config.embed_dropout,
    }


def gptneox(config):
    rope = getattr(config, "rope_parameters", None) or {
        "partial_rotary_factor": config.rotary_pct,
        "rope_theta": config.rotary_emb_base,
    }
    size = config.hidden_size // config.num_attention_heads
    return {
        "num_attention_heads": config.num_attention_heads,
        "attention_head_size": size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "attention_dropout_prob": config.attention_dropout,
        "hidden_dropout_prob": config.hidden_dropout,
        "activation": config.hidden_act,
        "layernorm_epsilon": config.layer_norm_eps,
        "causal_mask_size": config.max_position_embeddings,
        "pre_layernorm": True,
        "post_layernorm": False,
        "use_qkv_bias": config.attention_bias,
        "use_attn_dense_bias": config.attention_bias,
        "rotary_dim": int(size * rope.get("partial_rotary_factor", 1.0)),
        "rotary_emb_base": rope["rope_theta"],
        "gpt_neox_type_rotary": True,
        "parallel_attn_output": config.use_parallel_residual,
    }


def gptneox_head(config):
    return {
        "num_layers": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "use_positional_embedding": False,
    }


def bert(config):
    return {
        "num_attention_heads": config.num_attention_heads,
        "attention_head_size": config.hidden_size // config.num_attention_heads,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "attention_dropout_prob": config.attention_probs_dropout_prob,
        "hidden_dropout_prob": config.hidden_dropout_prob,
        "activation": config.hidden_act,
        "layernorm_epsilon": config.layer_norm_eps,
        "causal_mask_size": config.max_position_embeddings if config.is_decoder else None,
        "add_cross_attention": config.add_cross_attention,
    }


# Class → (kind of replacement, names, layer arguments, arguments of the head).
GPT2 = (translate.GPT2, gpt2, gpt2_head)
GPTJ = (translate.GPTJ, gptj, gptj_head)
GPTNEO = (translate.GPTNEO, gptneo, gptneo_head)
GPTNEOX = (translate.GPTNEOX, gptneox, gptneox_head)
BERT = (translate.BERT, bert, lambda config: {"num_layers": config.num_hidden_layers})
ROBERTA = (translate.ROBERTA, *BERT[1:])
CLASSES = {
    "GPT2LMHeadModel": ("lm", *GPT2),
    "GPT2Model": ("model", *GPT2),
    "GPT2Block": ("layer", *GPT2),
    "GPTJForCausalLM": ("lm", *GPTJ),
    "GPTJModel": ("model", *GPTJ),
    "GPTNeoForCausalLM": ("lm", *GPTNEO),
    "GPTNeoModel": ("model", *GPTNEO),
    "GPTNeoXForCausalLM": ("lm", *GPTNEOX),
    "GPTNeoXModel": ("model", *GPTNEOX),
    "BertEncoder": ("encoder", *BERT),
    "BertLayer": ("layer", *BERT),
    "RobertaEncoder": ("encoder", *ROBERTA),
    "RobertaLayer": ("layer", *ROBERTA),
}


def family_of(module):
    """(kind, names, layer arguments, head arguments) of a class of transformers that has a replacement, else None."""
    known = type(module).__module__.startswith("transformers.models.")
    return CLASSES.get(type(module).__name__) if known else None


def config_of(module):
    """The configuration of a model, or of the attention inside a layer."""
    return next(inner.config for inner in module.modules() if hasattr(inner, "config"))
