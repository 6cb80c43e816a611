"""The translate functions that scripts import, one pair for each family."""

from trainyard_parallel.huggingface.translate import LAYERS, Translator
from trainyard_parallel.state import state


def pair(names):
    """(to Hugging Face, from Hugging Face) for whole state dicts of one family.

    The first takes `max_seq_len`, needed only for transformers before 4.31, which kept causal masks among the weights.
    GPT-NeoX keeps queries, keys and values head by head: without a wrapped model pass `num_attention_heads`.
    """

    def translator(state_dict, layers, num_attention_heads):
        heads = num_attention_heads or state.module_manager.heads.get(names.name)
        if not names.base:
            mark = f"encoder.{layers}"
            found = next((name.split(mark)[0] for name in state_dict if mark in name), "")
            return Translator(names, "encoder", f"{found}encoder.", heads)
        is_whole = layers == LAYERS or any(name.startswith(names.base) for name in state_dict)
        return Translator(names, "lm" if is_whole else "model", "", heads)

    def to_hf(state_dict, max_seq_len=None, num_attention_heads=None):
        return translator(state_dict, LAYERS, num_attention_heads).to_hf(state_dict, max_seq_len)

    def from_hf(state_dict, max_seq_len=None, num_attention_heads=None):
        return translator(state_dict, names.layers, num_attention_heads).from_hf(state_dict)

    to_hf.__doc__ = f"Weights of a {names.name} model in Hugging Face's form, from smp's."
    from_hf.__doc__ = f"Weights of a {names.name} model in smp's form, from Hugging Face's."
    return to_hf, from_hf


def export(names, namespace):
    """Writes the functions into a module under every name that public scripts use."""
    to_hf, from_hf = pair(names)
    for key in (f"translate_state_dict_to_hf_{names.name}", "translate_state_dict_to_hf"):
        namespace[key] = to_hf
    for key in (
        f"translate_hf_state_dict_to_smdistributed_{names.name}",
        f"translate_hf_{names.name}_state_dict_to_smdistributed_{names.name}",
        f"translate_hf_{names.name}_state_dict_to_smdistributed",
        "translate_hf_state_dict_to_smdistributed",
        "translate_state_dict_to_smdistributed",
    ):
        namespace[key] = from_hf
    namespace["__all__"] = sorted(key for key in namespace if key.startswith("translate_"))
