"""Weights of one model in two forms: Hugging Face's names and layouts, and those of `smp.nn`'s transformers.

A family has *rules* for one layer: names of ours ↔ one name of theirs, and how the tensors differ. Names outside the
layers are pairs in a table. Translating there and back gives every tensor bit for bit.
"""

from dataclasses import dataclass, field
from typing import Callable

import torch

from trainyard_parallel.errors import SMPRuntimeError

LAYERS = "seq_layers."
# Buffers that older versions of transformers saved; they follow from the configuration.
DERIVED = ("attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq")


@dataclass(frozen=True)
class Rule:
    ours: tuple
    theirs: str
    join: Callable = lambda parts, heads: parts[0]
    split: Callable = lambda whole, heads: (whole,)


def same(ours, theirs):
    return [Rule((f"{ours}.{kind}",), f"{theirs}.{kind}") for kind in ("weight", "bias")]


def stacked(ours, theirs):
    """Theirs is one linear layer with the outputs of ours one after another, as a Conv1D: its weight is [in, out]."""
    count = len(ours)
    return [
        Rule(
            tuple(f"{name}.weight" for name in ours),
            f"{theirs}.weight",
            lambda parts, heads: torch.cat(parts).t().contiguous(),
            lambda whole, heads: [part.contiguous() for part in whole.t().chunk(count)],
        ),
        Rule(
            tuple(f"{name}.bias" for name in ours),
            f"{theirs}.bias",
            lambda parts, heads: torch.cat(parts),
            lambda whole, heads: [part.contiguous() for part in whole.chunk(count)],
        ),
    ]


def by_heads(ours, theirs):
    """Theirs has the outputs of ours head by head: [heads, 3, channels of a head]."""

    def join(parts, heads):
        return torch.stack([part.unflatten(0, (heads, -1)) for part in parts], 1).flatten(0, 2)

    def split(whole, heads):
        whole = whole.unflatten(0, (heads, len(ours), -1))
        return [whole[:, i].flatten(0, 1).contiguous() for i in range(len(ours))]

    return [Rule(tuple(f"{name}.{kind}" for name in ours), f"{theirs}.{kind}", join, split) for kind in ("weight", "bias")]


@dataclass(frozen=True)
class Names:
    """Where a family's parts are. `layers` is the path of the list of layers; `outside` pairs (ours, theirs) hold under
    `base`, `head` pairs beside it."""

    name: str
    layers: str
    rules: list
    base: str = ""
    outside: dict = field(default_factory=dict)
    head: dict = field(default_factory=dict)
    needs_heads: bool = False


QKV = ("attention.query", "attention.key", "attention.value")
CROSS = tuple(name.replace("attention", "crossattention") for name in QKV)

GPT2 = Names(
    "gpt2",
    "h.",
    [
        *same("attention.pre_layernorm", "ln_1"),
        *stacked(QKV, "attn.c_attn"),
        *stacked(("attention.dense",), "attn.c_proj"),
        *same("crossattention.pre_layernorm", "ln_cross_attn"),
        *stacked(CROSS[:1], "crossattention.q_attn"),
        *stacked(CROSS[1:], "crossattention.c_attn"),
        *stacked(("crossattention.dense",), "crossattention.c_proj"),
        *same("output.pre_layernorm", "ln_2"),
        *stacked(("output.dense1",), "mlp.c_fc"),
        *stacked(("output.dense2",), "mlp.c_proj"),
    ],
    "transformer.",
    {"word_embedding": "wte", "position_embedding": "wpe", "layernorm": "ln_f"},
    {"lm_head": "lm_head"},
)
GPTJ = Names(
    "gptj",
    "h.",
    [
        *same("attention.pre_layernorm", "ln_1"),
        *(rule for ours in ("query", "key", "value") for rule in same(f"attention.{ours}", f"attn.{ours[0]}_proj")),
        *same("attention.dense", "attn.out_proj"),
        *same("output.dense1", "mlp.fc_in"),
        *same("output.dense2", "mlp.fc_out"),
    ],
    "transformer.",
    {"word_embedding": "wte", "layernorm": "ln_f"},
    {"lm_head": "lm_head"},
)
GPTNEO = Names(
    "gptneo",
    "h.",
    [
        *same("attention.pre_layernorm", "ln_1"),
        *(rule for ours in ("query", "key", "value") for rule in same(f"attention.{ours}", f"attn.attention.{ours[0]}_proj")),
        *same("attention.dense", "attn.attention.out_proj"),
        *same("output.pre_layernorm", "ln_2"),
        *same("output.dense1", "mlp.c_fc"),
        *same("output.dense2", "mlp.c_proj"),
    ],
    "transformer.",
    {"word_embedding": "wte", "position_embedding": "wpe", "layernorm": "ln_f"},
    {"lm_head": "lm_head"},
)
GPTNEOX = Names(
    "gptneox",
    "layers.",
    [
        *same("attention.pre_layernorm", "input_layernorm"),
        *by_heads(QKV, "attention.query_key_value"),
        *same("attention.dense", "attention.dense"),
        *same("output.pre_layernorm", "post_attention_layernorm"),
        *same("output.dense1", "mlp.dense_h_to_4h"),
        *same("output.dense2", "mlp.dense_4h_to_h"),
    ],
    "gpt_neox.",
    {"word_embedding": "embed_in", "layernorm": "final_layer_norm"},
    # The second is the name in transformers before 5 and in published checkpoints.
    {"lm_head": ("lm_head", "embed_out")},
    needs_heads=True,
)
BERT_LAYER = [
    *(rule for name in QKV for rule in same(name, name.replace(".", ".self."))),
    *same("attention.dense", "attention.output.dense"),
    *same("attention.layernorm", "attention.output.LayerNorm"),
    *(rule for name in CROSS for rule in same(name, name.replace(".", ".self."))),
    *same("crossattention.dense", "crossattention.output.dense"),
    *same("crossattention.layernorm", "crossattention.output.LayerNorm"),
    *same("output.dense1", "intermediate.dense"),
    *same("output.dense2", "output.dense"),
    *same("output.layernorm", "output.LayerNorm"),
]
BERT = Names("bert", "layer.", BERT_LAYER)
ROBERTA = Names("roberta", "layer.", BERT_LAYER)


class Translator:
    """Both directions for one replaced module at `prefix`; other names of a state dict stay as they are.

    `kind` says what was replaced: `lm` (a model with its head), `model` (without), `encoder` (a list's owner) or `layer`.
    """

    def __init__(self, names, kind, prefix="", heads=None, head_name=None):
        self.names, self.kind, self.prefix, self.heads = names, kind, prefix, heads
        base = names.base if kind == "lm" else ""
        self.layers = {"layer": ("", ""), "encoder": (LAYERS, names.layers)}.get(
            kind, (f"transformer.{LAYERS}", base + names.layers)
        )
        self.pairs = []
        if kind in ("lm", "model"):
            self.pairs += [(ours, base + theirs) for ours, theirs in names.outside.items()]
        if kind == "lm":
            for ours, theirs in names.head.items():
                known = (theirs,) if isinstance(theirs, str) else theirs
                # Translation takes the first pair that fits.
                order = [head_name] if head_name else []
                self.pairs += [(ours, name) for name in [*order, *(n for n in known if n not in order)]]

    def to_hf(self, state_dict, max_seq_len=None):
        """From our names to Hugging Face's. `max_seq_len` adds the causal masks that transformers before 4.31 saved."""
        out = self.translate(
            state_dict, self.layers[0], self.layers[1], {ours: theirs for ours, theirs in reversed(self.pairs)}, self.join_layer
        )
        if max_seq_len is not None and self.names.base == "transformer.":
            inner = "attn.attention." if self.names is GPTNEO else "attn."
            start = f"{self.prefix}{self.layers[1]}"
            numbers = {name[len(start) :].split(".")[0] for name in out if name.startswith(start)}
            for number in sorted(numbers, key=int):
                mask = torch.ones(max_seq_len, max_seq_len, dtype=torch.bool).tril()[None, None]
                out[f"{start}{number}.{inner}bias"] = mask
                out[f"{start}{number}.{inner}masked_bias"] = torch.tensor(-1e9 if self.names is not GPT2 else -1e4)
        return out

    def from_hf(self, state_dict):
        """From Hugging Face's names to ours."""
        return self.translate(
            state_dict, self.layers[1], self.layers[0], {theirs: ours for ours, theirs in self.pairs}, self.split_layer
        )

    def translate(self, state_dict, start, target, pairs, layer):
        """`layer` translates one layer, which takes the place of its first entry."""
        out, layers = {}, {}
        for name, value in state_dict.items():
            place = name[len(self.prefix) :] if name.startswith(self.prefix) else None
            if place is not None and place.startswith(start):
                number, rest = ("", place) if self.kind == "layer" else place[len(start) :].split(".", 1)
                if number not in layers:
                    layers[number] = {}
                    out[number, target] = layers[number]
                layers[number][rest] = value
                continue
            key, _, kind = (place or "").rpartition(".")
            out[f"{self.prefix}{pairs[key]}.{kind}" if key in pairs else name] = value
        result = {}
        for name, value in out.items():
            if isinstance(name, str):
                result[name] = value
                continue
            number = name[0]
            where = f"{self.prefix}{target}{number}{'.' if number else ''}"
            result.update({f"{where}{key}": tensor for key, tensor in layer(value).items()})
        return result

    def join_layer(self, ours):
        taken, out = set(), {}
        for rule in self.names.rules:
            if all(name in ours for name in rule.ours):
                out[rule.theirs] = rule.join([ours[name] for name in rule.ours], self.count_heads())
                taken.update(rule.ours)
        return {**out, **{name: value for name, value in ours.items() if name not in taken}}

    def split_layer(self, theirs):
        taken, out = set(), {}
        for rule in self.names.rules:
            if rule.theirs in theirs:
                out.update(zip(rule.ours, rule.split(theirs[rule.theirs], self.count_heads())))
                taken.add(rule.theirs)
        rest = {name: v for name, v in theirs.items() if name not in taken and not name.endswith(DERIVED)}
        return {**out, **rest}

    def count_heads(self):
        if self.names.needs_heads and self.heads is None:
            raise SMPRuntimeError(
                f"translating weights of {self.names.name} needs num_attention_heads, which the state dict does not tell; "
                "pass it, or wrap the model first"
            )
        return self.heads
