"""`pip install` as a user does it; run by `script/lane packaging`."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]
LANES = PROJECT.parents[1] / ".trainyard" / "lanes"


def plain_environment(**variables):
    """Without the test command's cache of objects and its copy of the package."""
    hidden = ("PYTHONPATH", "TRAINYARD_COLLECTIVE_BUILD_DIR")
    return {**{name: value for name, value in os.environ.items() if name not in hidden}, **variables}


def pip_install(target, folder, **variables):
    # A copy: the build keeps its objects beside the sources, and there are none yet.
    source = folder / "collective"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns("build", "__pycache__", "tests"))
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(source)]
    return subprocess.run(command, capture_output=True, text=True, env=plain_environment(**variables))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("install")
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = pip_install(folder / "site", folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"pip install from nothing on {os.cpu_count()} cores: {time.monotonic() - started:.0f} s, of which compilers "
        f"and pip computed {cpu:.0f} s; load {os.getloadavg()[0]:.1f}"
    )
    return folder / "site"


def test_pip_builds_and_the_backend_works(installed):
    code = (
        "import torch, torch.distributed as dist, smdistributed.dataparallel.torch.torch_smddp\n"
        "dist.init_process_group('smddp', rank=0, world_size=1, store=dist.HashStore())\n"
        "x = torch.ones(3); dist.all_reduce(x); assert x.tolist() == [1, 1, 1]\n"
        "dist.destroy_process_group()\n"
    )
    environment = plain_environment(PYTHONPATH=str(installed))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def other_torches():
    return sorted(
        python
        for python in LANES.glob("torch-*/bin/python")
        if not torch.__version__.startswith(python.parents[1].name.removeprefix("torch-"))
    )


def test_another_torch_is_refused_before_the_extension_is_loaded(installed):
    others = other_torches()
    if not others:
        pytest.skip("no other torch here; script/torch-lane 2.10 collective makes one")
    code = (
        "import sys\ntry:\n    import trainyard_collective\n"
        "except ImportError as error:\n    print(error)\n"
        "    assert not any('trainyard' in name and name.endswith('_C') for name in sys.modules)\n"
    )
    for python in others:
        environment = plain_environment(PYTHONPATH=str(installed))
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, env=environment)
        print(f"{python.parents[1].name}: {done.stdout.strip()}")
        built_for = ".".join(torch.__version__.split(".")[:2])
        assert done.returncode == 0, done.stderr
        assert f"built for torch {built_for}" in done.stdout and "pip install" in done.stdout
        assert python.parents[1].name.removeprefix("torch-") in done.stdout


def test_a_missing_compiler_is_named(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "sh", "env"):
        (tools / name).symlink_to(shutil.which(name))
    done = pip_install(tmp_path / "site", tmp_path, PATH=str(tools))
    assert done.returncode != 0
    assert "no C++ compiler found" in done.stdout + done.stderr and "apt-get install g++" in done.stdout + done.stderr


def test_a_missing_torch_is_named(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    source = tmp_path / "collective"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns("build", "__pycache__", "tests"))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(tmp_path / "bare/bin/python"), "install", "--no-index", str(source)],
        capture_output=True, text=True, env=plain_environment(),
    )  # fmt: skip
    assert done.returncode != 0
    assert "no torch found" in done.stdout + done.stderr and "pip install torch" in done.stdout + done.stderr
