"""The same script under torchrun and under mpirun, with the interfaces of today and of versions 1.x."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from launching import find_mpirun, mpirun, torchrun

PROGRAMS = Path(__file__).parent / "programs"
RANKS = 2
needs_mpirun = pytest.mark.skipif(find_mpirun() is None, reason="no mpirun beside the interpreter or on PATH")


def weights_of_one_process():
    """The same training on the rows of all ranks."""
    sys.path.insert(0, str(PROGRAMS))
    import train_script

    model = train_script.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(train_script.STEPS):
        for rank in range(RANKS):
            x, y = train_script.rows_of(rank, step)
            (nn.functional.mse_loss(model(x), y) / RANKS).backward()
        optimizer.step()
        optimizer.zero_grad()
    return train_script.flat(model.parameters())


@pytest.mark.parametrize("interface", ["today", "old"])
@pytest.mark.parametrize("launch", [torchrun, pytest.param(mpirun, marks=needs_mpirun)])
def test_a_script_trains_like_one_process(launch, interface, tmp_path):
    launch(RANKS, PROGRAMS / "train_script.py", tmp_path, *(["old"] if interface == "old" else []), cwd=tmp_path)
    expected = weights_of_one_process()
    for rank in range(RANKS):
        result = torch.load(tmp_path / f"rank-{rank}.pt")
        assert result["local_rank"] == rank and result["names"] == ["rank 0", "rank 1"]
        assert torch.allclose(result["ddp"], expected, atol=1e-6)
        assert interface == "old" or torch.allclose(result["fsdp"], expected, atol=1e-6)
    assert interface == "old" or (tmp_path / "checkpoint" / ".metadata").exists()


OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    "given,expected",
    [
        # Several hosts: nobody can guess the address.
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, ["3", "4", "1", None, None]),
        (
            {**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "SMDATAPARALLEL_SERVER_ADDR": "algo-1"},
            ["3", "4", "1", "algo-1", "7592"],
        ),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, ["3", "4", "1", "127.0.0.1", "7592"]),
        # What the user or torchrun has set wins.
        (
            {**OPEN_MPI, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "me", "MASTER_PORT": "1"},
            ["0", "2", None, "me", "1"],
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, ["1", "2", None, None, None]),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, [None] * 5),
    ],
)
def test_the_import_takes_ranks_from_mpirun(monkeypatch, given, expected):
    from trainyard_collective import launcher

    environment = dict(given)
    monkeypatch.setattr(launcher.os, "environ", environment)
    launcher.fill_environment()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    assert [environment.get(name) for name in names] == expected
