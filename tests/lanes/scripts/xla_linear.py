"""A linear regression on XLA's device with the real torch-xla, one process; Trainium scripts are written like this."""

import json
import os

import torch
import torch_xla
import torch_xla.core.xla_model as xm

device = xm.xla_device()
torch.manual_seed(1)
inputs_NF = torch.rand(64, 8)
true_F = torch.arange(8.0)
model = torch.nn.Linear(8, 1).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
for _ in range(400):
    loss = ((model(inputs_NF.to(device)).squeeze(1) - (inputs_NF @ true_F).to(device)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    xm.optimizer_step(optimizer)
    xm.mark_step()
with open(os.path.join(os.environ["SM_MODEL_DIR"], "result.json"), "w") as file:
    json.dump({"device": str(device), "version": torch_xla.__version__, "loss": loss.item()}, file)
