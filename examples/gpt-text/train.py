"""Trains a small GPT on characters of a text with DistributedDataParallel; a training script as SageMaker runs it.

torchrun starts it on every host, once per process; by hand, `python train.py --train data --model-dir /tmp`
trains in a single process. Shapes: B batch, T time (characters), D width, V vocabulary, N heads, H head width.
"""

import argparse
import glob
import os
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=8, help="pieces of text per process and step")
    parser.add_argument("--context", type=int, default=64, help="characters in a piece")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
    parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
    arguments = parser.parse_args()
    for name in ("train", "model_dir"):
        if getattr(arguments, name) is None:
            parser.error(f"--{name.replace('_', '-')} is needed outside a training job")
    return arguments


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BTD):
        B, T, D = x_BTD.shape
        qkv_3BNTH = self.qkv(self.norm_attention(x_BTD)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended_BNTH = F.scaled_dot_product_attention(*qkv_3BNTH.unbind(0), is_causal=True)
        x_BTD = x_BTD + self.out(attended_BNTH.transpose(1, 2).reshape(B, T, D))
        return x_BTD + self.mlp(self.norm_mlp(x_BTD))


class GPT(nn.Module):
    def __init__(self, vocabulary_size, context, layers, width, heads):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary_size, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary_size, bias=False)
        self.apply(self.initialise)

    @staticmethod
    def initialise(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens_BT):
        x_BTD = self.token(tokens_BT) + self.position.weight[: tokens_BT.shape[1]]
        return self.head(self.norm(self.blocks(x_BTD)))


def read_text(folder):
    """All text files of the folder as (tokens_T, vocabulary); the vocabulary is the sorted characters."""
    paths = sorted(glob.glob(os.path.join(folder, "*.txt")))
    if not paths:
        raise SystemExit(f"{folder} holds no .txt file; it holds {os.listdir(folder)}")
    text = "".join(open(path, encoding="utf-8").read() for path in paths)
    vocabulary = sorted(set(text))
    number = {character: index for index, character in enumerate(vocabulary)}
    return torch.tensor([number[character] for character in text]), vocabulary


def take_batch(tokens_T, arguments, generator):
    """(inputs_BT, targets_BT): random pieces and the same pieces one character on."""
    starts = generator.integers(0, len(tokens_T) - arguments.context - 1, arguments.batch_size)
    pieces = torch.stack([tokens_T[start : start + arguments.context + 1] for start in starts])
    return pieces[:, :-1], pieces[:, 1:]


def loss_of(model, inputs_BT, targets_BT):
    return F.cross_entropy(model(inputs_BT).flatten(0, 1), targets_BT.flatten())


@torch.no_grad()
def mean_over_ranks(value):
    """Every rank must call it and gets the same number."""
    mean = torch.tensor(float(value), dtype=torch.float64)
    dist.all_reduce(mean)
    return mean.item() / dist.get_world_size()


@torch.no_grad()
def write_sample(model, vocabulary, context, length=200):
    tokens_BT = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(length):
        probabilities_V = F.softmax(model(tokens_BT[:, -context:])[0, -1] / 0.8, dim=0)
        tokens_BT = torch.cat([tokens_BT, torch.multinomial(probabilities_V, 1)[None]], dim=1)
    return "".join(vocabulary[token] for token in tokens_BT[0, 1:])


def train(arguments):
    torch.manual_seed(arguments.seed)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    tokens_T, vocabulary = read_text(arguments.train)
    held_out = len(tokens_T) // 20
    train_T, held_out_T = tokens_T[:-held_out], tokens_T[-held_out:]
    # Ranks draw different pieces; the seed of each is a function of its rank, so a run can be repeated.
    generator = np.random.default_rng([arguments.seed, rank])

    sizes = dict(context=arguments.context, layers=arguments.layers, width=arguments.width, heads=arguments.heads)
    model = DistributedDataParallel(GPT(len(vocabulary), **sizes))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"rank {rank} of {world_size}: {len(train_T)} characters, {parameters} parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.lr, total_steps=arguments.steps, pct_start=0.1)

    started, recent = time.monotonic(), []
    for step in range(1, arguments.steps + 1):
        loss = loss_of(model, *take_batch(train_T, arguments, generator))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % 25 == 0 or step == arguments.steps:
            mean = mean_over_ranks(sum(recent) / len(recent))
            recent.clear()
            if rank == 0:
                print(f"step={step} loss={mean:.4f} seconds={time.monotonic() - started:.1f}", flush=True)

    model.eval()
    with torch.no_grad():
        losses = [loss_of(model.module, *take_batch(held_out_T, arguments, generator)).item() for _ in range(8)]
    held_out_loss = mean_over_ranks(sum(losses) / len(losses))
    if rank == 0:
        print(f"held_out_loss={held_out_loss:.4f}", flush=True)
        print("sample:\n" + write_sample(model.module, vocabulary, arguments.context), flush=True)
        os.makedirs(arguments.model_dir, exist_ok=True)
        path = os.path.join(arguments.model_dir, "model.pt")
        torch.save({"model": model.module.state_dict(), "vocabulary": vocabulary, "sizes": sizes}, path)
        print(f"saved {path}", flush=True)


def main():
    arguments = parse_arguments()
    for name, alone in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29411")):
        os.environ.setdefault(name, alone)
    dist.init_process_group("gloo")
    train(arguments)
    dist.destroy_process_group()
    # Gloo's threads may still run when the interpreter tears down, which can abort a process that has done its
    # work. Everything is written, so leave without the teardown.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
