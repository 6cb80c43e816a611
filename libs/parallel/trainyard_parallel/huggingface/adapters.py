"""Replacements with the calls and results of the Hugging Face classes they stand for."""

import inspect
import warnings

import torch

from trainyard_parallel.errors import SMPRuntimeError, not_available
from trainyard_parallel.huggingface.families import config_of, family_of
from trainyard_parallel.huggingface.translate import Translator
from trainyard_parallel.state import state
from trainyard_parallel.tensor.lm_head import DistributedTransformerLMHead
from trainyard_parallel.tensor.module import cut_state
from trainyard_parallel.tensor.transformer import DistributedTransformer, DistributedTransformerLayer

# Arguments that ask for something which the replacement does not compute.
ABSENT = ("past_key_values", "layer_past", "inputs_embeds", "output_attentions", "output_hidden_states", "logits_to_keep")
ONLY_OF_MODELS = ("distribute_embedding",)


class Adapter:
    """Calls by the argument names of the original class, `positional`; results in its form."""

    def given(self, args, kwargs):
        given = {**dict(zip(self.positional, args)), **kwargs}
        asked = [name for name in ABSENT if not is_off(given.pop(name, None))]
        if asked:
            raise not_available(f"{self.original} with {', '.join(asked)} under tensor parallelism", "leave it out in training")
        return given


def is_off(value):
    return value is None or not isinstance(value, torch.Tensor) and not value


class AdaptedModel(Adapter, DistributedTransformerLMHead):
    @property
    def module(self):
        """Scripts reach the model through as many wrappers as the original library had: `model.module.module.module`."""
        return self

    def forward(self, *args, **kwargs):
        given = self.given(args, kwargs)
        ids, labels, positions = given.pop("input_ids"), given.pop("labels", None), given.pop("position_ids", None)
        if positions is not None and self.position_embedding is None:
            raise not_available(f"{self.original} with position_ids under tensor parallelism", "tokens are counted from 0")
        hidden = self.hidden_states(
            ids,
            hidden_tokens(given.pop("attention_mask", None)),
            given.pop("token_type_ids", None),
            positions,
            given.pop("encoder_hidden_states", None),
            hidden_tokens(given.pop("encoder_attention_mask", None)),
        )
        return_dict = given.pop("return_dict", None)
        given.pop("use_cache", None)
        result = self.result(hidden, labels, given)
        return result.to_tuple() if return_dict is False else result

    def result(self, hidden, labels, options):
        from transformers import modeling_outputs as outputs

        is_gpt2 = self.original.startswith("GPT2")
        if self.lm_head is None:
            kind = outputs.BaseModelOutputWithPastAndCrossAttentions if is_gpt2 else outputs.BaseModelOutputWithPast
            return kind(last_hidden_state=hidden)
        logits = self.lm_head(hidden)
        kind = outputs.CausalLMOutputWithCrossAttentions if is_gpt2 else outputs.CausalLMOutputWithPast
        return kind(loss=None if labels is None else causal_loss(logits, labels, **options), logits=logits)


def causal_loss(logits, labels, **options):
    from transformers.loss.loss_utils import ForCausalLMLoss

    return ForCausalLMLoss(logits, labels, logits.shape[-1], **options)


def hidden_tokens(mask):
    """1 where a token is hidden, from a mask with 1 where it is seen."""
    if mask is None:
        return None
    if mask.dim() != 2:
        raise SMPRuntimeError(f"attention_mask has {mask.dim()} dimensions; under tensor parallelism give [batch, sequence]")
    return 1 - mask.long()


class AdaptedLayer(Adapter, DistributedTransformerLayer):
    def forward(self, *args, **kwargs):
        given = self.given(args, kwargs)
        return super().forward(masked(self.crossattention is not None, given))[0]


class AdaptedEncoder(Adapter, DistributedTransformer):
    def forward(self, *args, **kwargs):
        from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

        given = self.given(args, kwargs)
        has_cross = self.seq_layers[0].crossattention is not None
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=super().forward(masked(has_cross, given))[0])


def masked(has_cross, given):
    """The input tuple of a layer from the arguments of an original one."""
    hidden = given["hidden_states"]
    mask = additive(given.get("attention_mask"), hidden.dtype)
    if not has_cross:
        return hidden, mask
    return hidden, given.get("encoder_hidden_states"), mask, additive(given.get("encoder_attention_mask"), hidden.dtype)


def additive(mask, dtype):
    """transformers' masks are additive, or boolean with True where a token is seen."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


KINDS = {"lm": AdaptedModel, "model": AdaptedModel, "encoder": AdaptedEncoder, "layer": AdaptedLayer}


def replace(module, name, keywords):
    """The replacement of a transformers module, with its weights; None where sizes do not divide (with a warning)."""
    kind, names, layer, head = family_of(module)
    config = config_of(module)
    arguments = {**layer(config), "initializer_range": config.initializer_range, "use_normal_initialization": True}
    tp, original = state.size("tp"), type(module).__name__
    wrong = [f"{key} {arguments[key]}" for key in ("num_attention_heads", "intermediate_size") if arguments[key] % tp]
    if wrong:
        reason = f"tensor_parallel_degree {tp} does not divide {', '.join(wrong)}"
        warnings.warn(f"{name or original} stays whole: {reason}", stacklevel=2)
        return None
    if kind != "layer":
        arguments |= head(config)
    else:
        arguments["layer_idx"] = next((m.layer_idx for m in module.modules() if hasattr(m, "layer_idx")), None)
    if kind in ("lm", "model"):
        tied = kind == "lm" and module.get_output_embeddings().weight is module.get_input_embeddings().weight
        arguments |= {"add_lm_head": kind == "lm", "tie_input_output_embedding": tied}
    else:
        keywords = {key: value for key, value in keywords.items() if key not in ONLY_OF_MODELS}
    new = KINDS[kind](**{**arguments, **keywords})
    signature = inspect.signature(type(module).forward)
    new.positional = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    new.original, new.config = original, config
    head_name = next((key for key in ("embed_out", "lm_head") if hasattr(module, key)), None)
    heads = arguments["num_attention_heads"]
    take_weights(new, module, Translator(names, kind, "", heads, head_name))
    own = Translator(names, kind, f"{name}." if name else "", heads, head_name)
    state.module_manager.translate_functions.append((own.to_hf, own.from_hf))
    state.module_manager.heads[names.name] = heads
    return new.train(module.training)


def take_weights(new, module, translator):
    """Copies this rank's parts, or records that (delayed.py); from a module that only has shapes nothing is taken."""
    first = next(module.parameters())
    new.to(first.dtype)
    if state.recording is None and any(parameter.is_meta for parameter in module.parameters()):
        return
    with torch.no_grad():
        own, whole = new.state_dict(), cut_state(new, translator.from_hf(module.state_dict()))
        if set(own) != set(whole):
            raise SMPRuntimeError(
                f"the weights of {type(module).__name__} do not fit {type(new).__name__}: {sorted(set(own) ^ set(whole))}; "
                "this version of transformers is not known to the library"
            )
        for key, value in own.items():
            value.copy_(whole[key])
