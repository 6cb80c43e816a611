"""A small GPT-2 of transformers trained from nothing by its `Trainer`, one character per token.

`Trainer` joins the ranks that torchrun starts by itself: the script holds nothing about distribution.
"""

import argparse
import os
import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--per-device-batch-size", type=int, default=8)
parser.add_argument("--learning-rate", type=float, default=3e-3)
parser.add_argument("--context", type=int, default=64, help="characters that the model sees")
parser.add_argument("--train", default=os.environ.get("SM_CHANNEL_TRAIN"))
parser.add_argument("--model-dir", default=os.environ.get("SM_MODEL_DIR"))
arguments = parser.parse_args()


class Passages(torch.utils.data.Dataset):
    """Passages of a text, each as long as the model's context."""

    def __init__(self, path, length):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        letters = sorted(set(text))
        self.vocabulary_size = len(letters)
        number_of = {letter: number for number, letter in enumerate(letters)}
        self.tokens = torch.tensor([number_of[letter] for letter in text])
        self.length = length

    def __len__(self):
        return len(self.tokens) // self.length

    def __getitem__(self, index):
        passage = self.tokens[index * self.length : (index + 1) * self.length]
        return {"input_ids": passage, "labels": passage}


passages = Passages(os.path.join(arguments.train, "king-james-gospels.txt"), arguments.context)
torch.manual_seed(1)
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=passages.vocabulary_size, n_positions=arguments.context, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
)
trainer = Trainer(
    model=model,
    train_dataset=passages,
    args=TrainingArguments(
        output_dir="/tmp/trainer",
        max_steps=arguments.steps,
        per_device_train_batch_size=arguments.per_device_batch_size,
        learning_rate=arguments.learning_rate,
        logging_steps=20,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    ),
)
result = trainer.train()
if trainer.is_world_process_zero():
    last = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1]
    print(f"{trainer.args.world_size} ranks, {result.global_step} steps: loss={float(last):.4f}", flush=True)
    trainer.save_model(arguments.model_dir)
trainer.accelerator.wait_for_everyone()
# Gloo's threads can deadlock with a group that goes while they end. Everything is written: leave without it.
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
