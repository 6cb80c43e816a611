"""A Llama that is split over tensor-parallel ranks and sharded over the rest, as scripts of the model-parallel
library's version 2 do it: build the transformers model, `tsm.transform` it, wrap it in FSDP, train.

Shapes: B passages, T characters.
"""

import argparse
import functools
import os
import sys

import torch
import torch.distributed as dist
import torch.sagemaker as tsm
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.nn import functional as F
from torch.sagemaker.fsdp import FullyShardedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=8, help="passages per data-parallel rank and step")
    parser.add_argument("--context", type=int, default=64, help="characters in a passage")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
    return parser.parse_known_args()[0]


def read_text(path):
    """(token numbers of all characters, size of the vocabulary)."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    number_of = {letter: number for number, letter in enumerate(sorted(set(text)))}
    return torch.tensor([number_of[letter] for letter in text]), len(number_of)


def main():
    arguments = parse_arguments()
    tsm.init()
    tokens, vocabulary_size = read_text(os.path.join(arguments.train, "king-james-gospels.txt"))
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=-(-vocabulary_size // 64) * 64,  # tensor-parallel ranks share it evenly
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=arguments.context,
    )
    model = tsm.transform(LlamaForCausalLM(config), load_state_dict_from_rank0=True)
    layer = type(model.base_model.layers[0])
    model = FullyShardedDataParallel(
        model,
        auto_wrap_policy=functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={layer}),
        use_orig_params=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr)

    # Ranks that share one model's tensors read the same passages; the others each read their own.
    readers = dist.get_world_size() // tsm.state.tp_size
    reader = dist.get_rank() // tsm.state.tp_size
    generator = torch.Generator().manual_seed(2)
    for step in range(1, arguments.steps + 1):
        starts = torch.randint(len(tokens) - arguments.context - 1, (readers * arguments.batch_size,), generator=generator)
        mine = starts[reader * arguments.batch_size : (reader + 1) * arguments.batch_size]
        passages_BT = torch.stack([tokens[start : start + arguments.context + 1] for start in mine])
        logits_BTV = model(input_ids=passages_BT[:, :-1]).logits
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), passages_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            mean = loss.detach().clone()
            dist.all_reduce(mean)
            if dist.get_rank() == 0:
                print(f"step={step} loss={mean.item() / dist.get_world_size():.4f}", flush=True)
    dist.barrier()
    # Gloo's threads can deadlock with a group that goes while they end. Everything is written: leave without it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
