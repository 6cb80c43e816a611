"""Every schedule of torch.distributed.pipelining gives one process's losses and gradients."""

import copy

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.parametrize("topology", ["2x2"])
MICRO_BATCHES = 8


def stages_of(schedule, rank, size):
    """The stages that a rank holds, among all."""
    if schedule in ("GPipe", "1F1B"):
        return [rank], size
    if schedule in ("ZBVZeroBubble", "DualPipeV"):  # there and back again
        return [rank, 2 * size - 1 - rank], 2 * size
    return [rank, rank + size], 2 * size


def check_schedule(rank, size, name):
    from torch.distributed.pipelining import PipelineStage
    from torch.distributed.pipelining.schedules import get_schedule_class

    held, count = stages_of(name, rank, size)
    torch.manual_seed(5)
    layers = [nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(count)]
    x, y = torch.randn(MICRO_BATCHES * 2, 16), torch.randn(MICRO_BATCHES * 2, 16)
    reference = nn.Sequential(*copy.deepcopy(layers))
    expected = nn.functional.mse_loss(reference(x), y)
    expected.backward()

    stages = [PipelineStage(layers[index], index, count, torch.device("cpu")) for index in held]
    kind = get_schedule_class(name)
    single = name in ("GPipe", "1F1B")
    schedule = kind(stages[0] if single else stages, MICRO_BATCHES, loss_fn=nn.functional.mse_loss)
    for _ in range(2):  # the second step reuses what the first has set up
        for index in held:
            layers[index].zero_grad()
        losses = []
        last = count - 1 in held
        arguments = (x,) if 0 in held else ()
        schedule.step(*arguments, **({"target": y, "losses": losses} if last else {}))
    if last:
        assert torch.stack(losses).mean().item() == pytest.approx(expected.item(), rel=1e-5)
    for index in held:
        for ours, theirs in zip(layers[index].parameters(), reference[index].parameters()):
            assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["GPipe", "1F1B", "LoopedBFS", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"],
)
def test_schedules_equal_one_process(world, name):
    world.run(check_schedule, name)
