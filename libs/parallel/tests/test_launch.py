"""A v1 script in processes of its own, with the environment that each launcher sets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from launching import free_port

SCRIPT = Path(__file__).parent / "v1_script.py"
SECONDS = 180
# What the wheel's .pth file does, then the script as it is.
START = "import runpy, sys, trainyard_parallel.import_hook; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"


def variables(launcher, rank, size):
    """What the launcher gives to a rank, beside SageMaker's own variables."""
    if launcher == "mpirun":
        names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
    else:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return dict(zip(names, map(str, (rank, size, rank, size))))


def launch(launcher, size, parameters, script=SCRIPT, *arguments, hosts=()):
    """Lines that rank 0 printed; `hosts` holds more variables for each rank."""
    base = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "RANK", "WORLD_", "LOCAL_", "MASTER_", "SM_"))}
    base |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "SM_HP_MP_PARAMETERS": json.dumps(parameters),
        "SM_FRAMEWORK_PARAMS": json.dumps({"sagemaker_mpi_enabled": launcher == "mpirun"}),
        "TRAINYARD_PARALLEL_TIMEOUT_SECONDS": "60",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(script), *arguments],
            env=(hosts[rank] if hosts else {}) | base | variables(launcher, rank, size),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * size, "\n".join(outputs)
    return [line for line in outputs[0].splitlines() if line.startswith(("epoch", "step"))]


@pytest.fixture(scope="module")
def alone():
    return launch("torchrun", 1, {"microbatches": 4})


@pytest.mark.parametrize("launcher", ["mpirun", "torchrun"])
def test_a_script_trains_the_same_on_two_stages(alone, launcher):
    lines = launch(launcher, 2, {"partitions": 2, "microbatches": 4})
    assert len(lines) == 3
    for line, expected in zip(lines, alone):
        _, epoch, _, loss, *shape = line.split()
        _, other, _, value, *size = expected.split()
        # Float32 with Adadelta.
        assert epoch == other and shape == size and float(loss) == pytest.approx(float(value), rel=1e-5)
    assert float(lines[-1].split()[3]) < float(lines[0].split()[3])


# Many processes on one processor, in which Gloo's threads run last: they let go of the last collective's tensors late.
ENDS = """
import os, runpy, signal, sys, threading
import torch, trainyard_parallel.import_hook
import torch.distributed as dist
import smdistributed.modelparallel.torch

torch.set_num_threads(1)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
join = dist.init_process_group

def join_and_hold_back(*args, **kwargs):
    join(*args, **kwargs)
    for thread in map(int, os.listdir("/proc/self/task")):
        if thread != threading.get_native_id():
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))

dist.init_process_group = join_and_hold_back
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm(150)
        runpy.run_path(sys.argv[1], run_name="__main__")
        sys.exit(0)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux' schedulers")
def test_a_process_whose_gloo_threads_are_late_ends_well():
    base = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "RANK", "WORLD_", "LOCAL_", "MASTER_", "SM_"))}
    # Alone, so that it meets nobody at a port.
    environment = base | {"SM_HP_MP_PARAMETERS": json.dumps({"microbatches": 4})}
    ended = subprocess.run(
        [sys.executable, "-c", ENDS, str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert ended.stdout.splitlines()[-1] == str([0] * 8), ended.stdout + ended.stderr


def test_impossible_degrees_end_every_rank_with_all_numbers():
    with pytest.raises(AssertionError, match="2 ranks but pipeline_parallel_degree 3 × tensor_parallel_degree 1"):
        launch("mpirun", 2, {"partitions": 3})


def test_a_version_2_script_trains_the_same_on_two_ranks(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    script = SCRIPT.with_name("v2_script.py")
    found = []
    for size, parameters in ((1, {}), (2, {"hybrid_shard_degree": 2})):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        found.append(launch("torchrun", size, parameters, script, str(folder)))
        weights = torch.load(folder / "full.pt", weights_only=False)["model"]
        assert weights["model.layers.0.self_attn.q_proj.weight"].shape == (32, 32)
    for lines in found:
        assert len(lines) == 6 and lines[4:] == lines[2:4]
        for line, expected in zip(lines, found[0]):
            for own, other in zip(line.split()[3::2], expected.split()[3::2]):
                # Float32.
                assert float(own) == pytest.approx(float(other), rel=2e-4)
    losses = [float(line.split()[3]) for line in found[0]]
    assert losses[3] < losses[0]
