"""Scripts under the environment that the estimator's distribution gives them.

The environments were captured from SageMaker's own toolkit on two hosts (packages/launch holds them and keeps its launcher
equal to them); here each host has one rank.
"""

import json
from pathlib import Path

import pytest

import test_launch

GOLDEN = Path(__file__).resolve().parents[3] / "packages/launch/src/golden"
V2 = Path(__file__).with_name("v2_script.py")


def captured(name):
    path = GOLDEN / f"v2-pytorch-smmodelparallel-{name}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not beside this library; it is in the repository only")
    launched = json.loads(path.read_text())["launched"]
    hosts = []
    for host in ("algo-1", "algo-2"):
        # mpirun starts all ranks from the first host.
        added = launched[host].get("env_added") or launched["algo-1"]["env_added"]
        # Names and paths of the captured machines mean nothing here.
        hosts.append({k: v for k, v in added.items() if k not in ("PATH", "PYTHONPATH", "HOME")})
    return hosts


def degrees(hosts):
    return json.loads(hosts[0]["SM_HP_MP_PARAMETERS"])


def test_version_1_reads_what_the_estimator_sends_under_mpi():
    from trainyard_parallel import config

    hosts = captured("v1-mpi")
    sent = degrees(hosts)
    # The captured job has 2 hosts of 8 ranks.
    cfg = config.parse_v1(sent, 16)
    assert cfg.microbatches == sent["microbatches"]
    alone = test_launch.launch("mpirun", 1, {"microbatches": sent["microbatches"]})
    found = test_launch.launch("mpirun", 2, {**sent, "partitions": 2, "ddp": True}, hosts=hosts)
    for line, expected in zip(found, alone, strict=True):
        assert float(line.split()[3]) == pytest.approx(float(expected.split()[3]), rel=1e-5)


def test_version_2_reads_what_the_estimator_sends_under_torchrun(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from trainyard_parallel import config

    hosts = captured("v2-torch_distributed")
    sent = degrees(hosts)
    cfg = config.parse_v2(sent, 16)
    assert (cfg.hybrid_shard_degree, cfg.tensor_parallel_degree) == (sent["hybrid_shard_degree"], sent["tensor_parallel_degree"])
    lines = test_launch.launch("torchrun", 2, {**sent, "hybrid_shard_degree": 1}, V2, str(tmp_path), hosts=hosts)
    losses = [float(line.split()[3]) for line in lines]
    assert losses[3] < losses[0]
