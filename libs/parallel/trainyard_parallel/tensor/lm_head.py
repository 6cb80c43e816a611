"""A whole language model with split weights: embeddings, transformer, head."""

import torch
import torch.nn.functional as F
from torch import nn

from trainyard_parallel.tensor.layers import DistributedEmbedding, DistributedLinear
from trainyard_parallel.tensor.module import DistributedModule
from trainyard_parallel.tensor.transformer import DistributedTransformer, apply_norm


class DistributedTransformerLMHead(DistributedModule):
    """Embeddings, `num_layers` layers and a head over the vocabulary.

    Input: the tuple `(input_ids, attention_mask, token_type_ids, position_ids, labels)`, with `add_cross_attention`
    `(…, position_ids, cross_states, cross_states, cross_mask, labels)`. Masks are [B, S] with 1 where a token is hidden;
    all but input_ids may be None. Result: logits [B, S, V] (hidden states without `add_lm_head`), or `(loss, logits)` where
    labels are given: the mean cross entropy, of the next token with a causal mask, ignoring labels of -100.

    The head shares the word embedding's weight (`tie_input_output_embedding`). `distribute_embedding` splits word
    embedding and head over hidden channels; otherwise every rank holds them whole. `post_layernorm` normalises the
    embeddings (BERT), `pre_layernorm` the last hidden states (GPT-2). Other arguments: DistributedTransformerLayer.
    """

    def __init__(
        self,
        num_layers=12,
        num_attention_heads=32,
        attention_head_size=32,
        hidden_size=1024,
        intermediate_size=4096,
        vocab_size=30522,
        num_positions=1024,
        attention_dropout_prob=0.1,
        hidden_dropout_prob=0.1,
        activation="gelu",
        layernorm_epsilon=1e-5,
        num_token_types=0,
        causal_mask_size=None,
        add_cross_attention=False,
        add_lm_head=True,
        initializer_range=0.02,
        use_normal_initialization=False,
        pre_layernorm=False,
        post_layernorm=True,
        use_positional_embedding=True,
        use_lm_head_bias=False,
        tie_input_output_embedding=True,
        distribute_embedding=False,
        embedding_dropout_prob=None,
        **layer,
    ):
        super().__init__()
        self.dropout = hidden_dropout_prob if embedding_dropout_prob is None else embedding_dropout_prob
        self.is_causal, self.has_cross = causal_mask_size is not None, add_cross_attention
        if distribute_embedding:
            self.word_embedding = DistributedEmbedding(vocab_size, hidden_size, initializer_range=initializer_range)
        else:
            self.word_embedding = embedding(vocab_size, hidden_size, initializer_range)
        self.position_embedding = embedding(num_positions, hidden_size, initializer_range) if use_positional_embedding else None
        self.token_type_embedding = embedding(num_token_types, hidden_size, initializer_range) if num_token_types else None
        self.embedding_layernorm = nn.LayerNorm(hidden_size, eps=layernorm_epsilon) if post_layernorm else None
        self.transformer = DistributedTransformer(
            num_layers,
            num_attention_heads=num_attention_heads,
            attention_head_size=attention_head_size,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            attention_dropout_prob=attention_dropout_prob,
            hidden_dropout_prob=hidden_dropout_prob,
            activation=activation,
            layernorm_epsilon=layernorm_epsilon,
            initializer_range=initializer_range,
            use_normal_initialization=use_normal_initialization,
            causal_mask_size=causal_mask_size,
            add_cross_attention=add_cross_attention,
            pre_layernorm=pre_layernorm,
            post_layernorm=post_layernorm,
            **layer,
        )
        self.layernorm = nn.LayerNorm(hidden_size, eps=layernorm_epsilon) if pre_layernorm else None
        self.lm_head = None
        if add_lm_head:
            head = DistributedLinear if distribute_embedding else nn.Linear
            self.lm_head = head(hidden_size, vocab_size, bias=use_lm_head_bias)
            if tie_input_output_embedding:
                self.lm_head.weight = self.word_embedding.weight

    def forward(self, inputs):
        input_ids, attention_mask, token_type_ids, position_ids, *cross, labels = inputs
        hidden = self.hidden_states(input_ids, attention_mask, token_type_ids, position_ids, *cross[-2:])
        if self.lm_head is None:
            return hidden
        logits = self.lm_head(hidden)
        return logits if labels is None else (self.loss(logits, labels), logits)

    def hidden_states(self, input_ids, mask=None, token_types=None, positions=None, cross=None, cross_mask=None):
        hidden = self.word_embedding(input_ids)
        if self.position_embedding is not None:
            if positions is None:
                positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
            hidden = hidden + self.position_embedding(positions)
        if token_types is not None:
            # Without a table of their own, token types are words, as in GPT-2.
            hidden = hidden + (self.token_type_embedding or self.word_embedding)(token_types)
        elif self.token_type_embedding is not None:
            hidden = hidden + self.token_type_embedding(torch.zeros_like(input_ids))
        if self.embedding_layernorm is not None:
            hidden = self.embedding_layernorm(hidden)
        hidden = F.dropout(hidden, self.dropout, self.training)
        mask = additive(mask, hidden.dtype)
        masks = (cross, mask, additive(cross_mask, hidden.dtype)) if self.has_cross else (mask,)
        hidden = self.transformer((hidden, *masks))[0]
        if self.layernorm is not None:
            hidden = apply_norm(self.layernorm, hidden)
        return hidden

    def loss(self, logits, labels):
        if self.is_causal:
            logits, labels = logits[:, :-1], labels[:, 1:]
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def additive(hidden_BS, dtype):
    """An additive mask [B, 1, 1, S] from one with 1 where a token is hidden."""
    if hidden_BS is None:
        return None
    return hidden_BS[:, None, None, :].to(dtype) * torch.finfo(dtype).min


def embedding(rows, width, std):
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, std=std)
    return table
