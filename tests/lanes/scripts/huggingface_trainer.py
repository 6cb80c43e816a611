"""transformers' Trainer on a tiny model made here, over all ranks that torchrun started."""

import json
import os

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

torch.manual_seed(0)
model = BertForSequenceClassification(BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                                                 intermediate_size=64, max_position_embeddings=16))
tokens = torch.randint(2, 64, (64, 12), generator=torch.Generator().manual_seed(1))
data = [{'input_ids': row, 'attention_mask': torch.ones_like(row), 'labels': (row[0] > 32).long()} for row in tokens]
arguments = TrainingArguments(output_dir='/tmp/trainer', max_steps=4, per_device_train_batch_size=4, use_cpu=True, report_to=[],
                              save_strategy='no', logging_steps=2, disable_tqdm=True)
trainer = Trainer(model=model, args=arguments, train_dataset=data)
loss = trainer.train().training_loss
if trainer.is_world_process_zero():
    trainer.save_model(os.environ['SM_MODEL_DIR'])
print('RESULT ' + json.dumps({'rank': int(os.environ['RANK']), 'world': trainer.args.world_size, 'loss': loss}), flush=True)
