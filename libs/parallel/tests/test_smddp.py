"""Every strategy over the backend of libs/collective equals one process. Runs where that library has been built."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import test_checkpoint
import test_v2
import zoo
from launching import free_port
from ranks import World
from training import compare

BOUND = 1e-12
ROOT = Path(__file__).resolve().parents[3]
DDP = {"ddp": True}
STRATEGIES = {
    "data": DDP,
    "pipeline": {"pipeline_parallel_degree": 2, "microbatches": 3},
    "pipeline simple": {"pipeline_parallel_degree": 2, "microbatches": 3, "pipeline": "simple"},
    "tensor": {**DDP, "tensor_parallel_degree": 2, "microbatches": 2},
    "tensor prescaled": {**DDP, "tensor_parallel_degree": 2, "prescaled_batch": True},
    "optimizer state": {**DDP, "shard_optimizer_state": True},
    "sharded data": {**DDP, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100, "sdp_gradient_clipping": 1e9},
}


def built():
    """The folder that libs/collective/script/test made for its present sources, or None."""
    library = ROOT / "libs/collective"
    if not library.exists():
        return None
    done = subprocess.run([sys.executable, "build_backend.py", "--key"], cwd=library, capture_output=True, text=True)
    # script/torch-lane keeps the build of another torch apart.
    state = Path(os.environ.get("TRAINYARD_COLLECTIVE_STATE") or ROOT / ".trainyard/collective")
    folder = state / f"lib-{done.stdout.strip()}"
    return folder if done.returncode == 0 and (folder / "complete").exists() else None


@pytest.fixture(scope="module")
def world():
    folder = built()
    if folder is None:
        pytest.skip("libs/collective is not built for its present sources; libs/collective/script/test builds it")
    environment = {
        "TRAINYARD_PARALLEL_BACKEND": "smddp",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "PYTHONPATH": str(folder),
    }
    world = World(2, environment=environment)
    yield world
    world.close()


def backend_and_difference(rank, config):
    import torch.distributed as dist

    return dist.get_backend(), compare(rank, config)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_of_version_1(world, name):
    for backend, (loss, weights) in world.run(backend_and_difference, STRATEGIES[name]):
        assert backend == "smddp"
        assert loss <= BOUND and weights <= BOUND, (loss, weights)


@pytest.mark.parametrize("config", [{"hybrid_shard_degree": 2}, {"tensor_parallel_degree": 2}], ids=["hybrid shard", "tensor"])
def test_a_strategy_of_version_2(world, config):
    test_v2.check(world, config)


def test_a_partial_checkpoint(world, tmp_path):
    config = test_checkpoint.CONFIGS["pp2"][1]
    expected = world.run(test_checkpoint.save_at_two, config, str(tmp_path), True)
    for (_, weights), reference in zip(world.run(test_checkpoint.resume_at_two, config, str(tmp_path)), expected):
        assert zoo.difference(weights, reference) <= BOUND
