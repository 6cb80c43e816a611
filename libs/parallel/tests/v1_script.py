"""A training script in the style of SageMaker's first samples for the model-parallel library."""

import torch
import torch.nn as nn
import torch.nn.functional as F

import smdistributed.modelparallel.torch as smp


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(8 * 4 * 4, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x):
        return F.log_softmax(self.classifier(torch.flatten(self.features(x), 1)), dim=1)


@smp.step
def train_step(model, data, target):
    output = model(data)
    loss = F.nll_loss(output, target, reduction="mean")
    model.backward(loss)
    return output, loss


def main():
    smp.init()
    torch.manual_seed(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = smp.DistributedModel(Net())
    optimizer = smp.DistributedOptimizer(torch.optim.Adadelta(model.parameters(), lr=1.0))
    generator = torch.Generator().manual_seed(5)
    data = torch.rand(16, 1, 8, 8, generator=generator).to(device)
    target = (data.mean((1, 2, 3)) * 100).long() % 10
    for epoch in range(3):
        optimizer.zero_grad()
        output, loss_mb = train_step(model, data, target)
        loss = loss_mb.reduce_mean()
        optimizer.step()
        if smp.rank() == 0:
            print(f"epoch {epoch} loss {loss.item():.12f} outputs {tuple(output.concat().shape)}", flush=True)
    smp.barrier()


if __name__ == "__main__":
    main()
