"""DeepSpeed ZeRO over the backend equals one process; run by `script/lane deepspeed`.

Bound: after 6 steps of AdamW (12 micro-batches of 8 rows per rank) in float32,
weights differ from one process's by at most 1e-6 absolutely, and losses by 1e-5
relatively; in bfloat16, weights are those of Gloo within 2 % of their norm.
"""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from launching import torchrun

PROGRAM = Path(__file__).parent / "programs" / "deepspeed_zero.py"
sys.path.insert(0, str(PROGRAM.parent))
WORLDS = {"1x2": (2, 2), "2x2": (4, 2)}


@pytest.fixture(scope="module")
def program():
    import deepspeed_zero

    return deepspeed_zero


def launch(folder, ranks, per_host, stage, dtype, backend):
    """Runs the program under torchrun and returns what each rank wrote."""
    folder.mkdir()
    torchrun(ranks, PROGRAM, folder, stage, dtype, backend, cwd=folder, RANKS_PER_HOST=per_host)
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(ranks)]


def one_process(program, ranks):
    """The same training on the rows of all ranks, in plain torch."""
    model = program.make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=program.LEARNING_RATE)
    losses = [[] for _ in range(ranks)]
    for step in range(program.STEPS):
        for part in range(program.ACCUMULATION):
            for rank in range(ranks):
                x, y = program.rows_of(rank, step * program.ACCUMULATION + part)
                loss = nn.functional.mse_loss(model(x), y)
                (loss / ranks / program.ACCUMULATION).backward()
                losses[rank].append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return losses, torch.cat([p.detach().flatten() for p in model.parameters()])


# What a stage cannot do without, by its name in the flight record.
NEEDED = {
    1: {"all_reduce", "_all_gather_base"},
    2: {"all_reduce", "_all_gather_base"},
    3: {"_reduce_scatter_base", "_all_gather_base"},
}


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("hosts", list(WORLDS))
def test_zero_equals_one_process(program, tmp_path, hosts, stage):
    ranks, per_host = WORLDS[hosts]
    results = launch(tmp_path / "ours", ranks, per_host, stage, "f32", "smddp")
    losses, weights = one_process(program, ranks)
    for rank, result in enumerate(results):
        assert result["losses"] == pytest.approx(losses[rank], rel=1e-5)
        assert torch.equal(result["weights"], results[0]["weights"])
        assert result["again"] == result["after"], "a loaded checkpoint must continue as the run that saved it"
        assert NEEDED[stage] <= set(result["operations"])
    difference = (results[0]["weights"] - weights).abs().max().item()
    print(f"ZeRO {stage} on {hosts}: weights differ by at most {difference:.1e}; {results[0]['operations']}")
    assert difference <= 1e-6


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_in_bfloat16_equals_gloo(tmp_path, stage):
    ours = launch(tmp_path / "ours", 2, 2, stage, "bf16", "trainyard")
    gloo = launch(tmp_path / "gloo", 2, 2, stage, "bf16", "gloo")
    difference = (ours[0]["weights"] - gloo[0]["weights"]).norm() / gloo[0]["weights"].norm()
    print(f"ZeRO {stage} in bfloat16: relative difference from Gloo {difference:.1e}")
    assert difference <= 0.02
