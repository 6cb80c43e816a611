"""What other ranks see when one fails in a step. A rank that hung would not answer within ranks.ANSWER_SECONDS."""

import os

import pytest
import torch
from torch import nn

from ranks import World
from training import fresh


# Seconds that a rank waits for a peer.
LIMIT = 10


class Second(nn.Linear):
    """Raises or ends its process in the second step."""

    def __init__(self, how):
        super().__init__(4, 4)
        self.how, self.calls = how, 0

    def forward(self, x):
        self.calls += not x.is_meta
        if self.calls > 1 and self.how == "raises":
            raise ValueError("the batch is cursed")
        if self.calls > 1:
            os._exit(3)
        return super().forward(x)


class Fails(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), Second(how)

    def forward(self, x):
        return self.second(self.first(x))


def train(rank, how):
    torch.set_default_dtype(torch.float64)
    smp = fresh({"partitions": 2, "auto_partition": False, "default_partition": 0})
    net = Fails(how)
    smp.set_partition(net.second, 1)
    model = smp.DistributedModel(net)

    @smp.step
    def step(x):
        loss = model(x).sum()
        model.backward(loss)
        return loss

    try:
        for _ in range(2):
            step(torch.ones(2, 4))
    except BaseException as error:
        causes = []
        while error is not None:
            causes.append(str(error))
            error = error.__cause__
        return causes
    return None


@pytest.fixture
def world():
    # Of its own: what fails here must not be used by other tests.
    world = World(2, peer_seconds=LIMIT)
    yield world
    world.kill()


def test_when_a_stage_raises_it_says_why_and_its_peer_raises_within_the_limit(world):
    first, second = world.run(train, "raises")
    assert any("the batch is cursed" in cause for cause in second)
    assert first


def test_when_a_rank_dies_its_peer_raises_within_the_limit(world):
    for link in world.links:
        link.send((train, ("dies",)))
    kind, causes = world._answer(0)
    assert kind == "ok" and causes
    assert world._answer(1)[0] == "error"
