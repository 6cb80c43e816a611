"""Worlds that tests share; they are few at a time and gone at the end."""

import os
import shutil
import sys
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything makes a file or starts a process: what tests, ranks and torch leave in the temporary folder goes with
# it. The name is short, since sockets lie inside.
FOLDER = tempfile.mkdtemp(prefix="ty-par-")
os.environ["TMPDIR"] = tempfile.tempdir = FOLDER
# After multiprocessing's own folder inside, whose priority is -100.
Finalize(None, shutil.rmtree, (FOLDER, True), exitpriority=-200)

# For launching.py, which starts programs for both libraries; modules of equal names are this folder's.
sys.path.append(str(Path(__file__).resolve().parents[2] / "collective/tests"))

# Makes torch.sagemaker importable in this process, as the wheel's .pth file does.
import trainyard_parallel  # noqa: F401
from ranks import World
from strategies import STRATEGIES

# The same examples in every run, however slow the machine, and nothing kept beside the tests.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")


def pytest_configure(config):
    config.addinivalue_line("markers", "strategy: one parity test for each strategy (strategies.py)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    chosen = set(STRATEGIES.values())
    for item in items:
        if f"{item.path.name}::{item.name}" in chosen:
            item.add_marker("strategy")


_worlds = {}


def world_of(size):
    """A living World of `size` ranks."""
    if size not in _worlds or not _worlds[size].is_alive:
        _worlds[size] = World(size)
    return _worlds[size]


@pytest.fixture(scope="session")
def worlds():
    yield world_of
    while _worlds:
        _worlds.popitem()[1].close()
