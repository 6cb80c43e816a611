"""`torch.sagemaker.nn.huggingface.llama_flashattn`."""

from torch.sagemaker.nn.attn import FlashGroupedQueryAttention
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding, apply_rotary_pos_emb

from trainyard_parallel.errors import not_available


class LlamaFlashAttention(LlamaAttention):
    """Causal attention of Llama without a mask of its own: parameters as transformers' LlamaAttention.

    Returns (hidden states, None, None). Padding is not masked, as in the original; caches are refused.
    """

    def __init__(self, config, layer_idx=0):
        super().__init__(config, layer_idx)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.attend = FlashGroupedQueryAttention(config.attention_dropout, self.scaling)

    def forward(
        self, hidden_states, attention_mask=None, position_ids=None, past_key_value=None, output_attentions=False, use_cache=False
    ):
        if past_key_value is not None or output_attentions:
            raise not_available("LlamaFlashAttention with past_key_value or output_attentions", "leave them out in training")
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        q, k, v = (layer(hidden_states).view(shape).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj))
        if position_ids is None:
            position_ids = hidden_states.new_ones(hidden_states.shape[1]).cumsum(0).long()[None] - 1
        q, k = apply_rotary_pos_emb(q, k, *self.rotary_emb(v, position_ids))
        out = self.attend(q, (k, v), causal=True, layout="b h s d")
        return self.o_proj(out.transpose(1, 2).flatten(2)), None, None
