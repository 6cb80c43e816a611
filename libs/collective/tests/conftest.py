"""Worlds that tests share, and what must hold after every test run."""

import multiprocessing.util
import os
import shutil
import signal
import sys
import tempfile

import pytest

from ranks import World

# Name → hosts of the ranks.
TOPOLOGIES = {
    "1x2": [0, 0],
    "1x3": [0, 0, 0],
    "1x4": [0, 0, 0, 0],
    "2x1": [0, 1],
    "2x2": [0, 0, 1, 1],
    "3x1": [0, 1, 2],
    "3+1": [0, 0, 0, 1],
}

_worlds = {}


def pytest_configure():
    # A run that is ended, as at a time limit, clears its processes and namespaces like one that fails.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # torchrun, multiprocessing and pytest leave folders behind where processes are killed, which these tests do.
    scratch = tempfile.mkdtemp(prefix="trainyard-collective-")
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    # After multiprocessing has removed its own folder in it, at priority -100.
    multiprocessing.util.Finalize(None, shutil.rmtree, [scratch, True], exitpriority=-200)


def world_for(name):
    if name not in _worlds:
        # Few processes at a time: small machines run these tests.
        for other in list(_worlds):
            _worlds.pop(other).close()
        hosts = TOPOLOGIES[name]
        _worlds[name] = World(len(hosts), hosts)
    return _worlds[name]


def drop_worlds():
    for name in list(_worlds):
        _worlds.pop(name).close()


@pytest.fixture(scope="session", params=list(TOPOLOGIES))
def topology(request):
    return request.param


@pytest.fixture
def world(topology):
    """A World of every topology in turn; it must survive the test."""
    world = world_for(topology)
    try:
        yield world
    finally:
        if any(not process.is_alive() for process in world.processes):
            _worlds.pop(topology, None)
            world.kill()


def pytest_collection_modifyitems(items):
    # All tests of one world together, so that each is started once.
    def order(item):
        call = getattr(item, "callspec", None)
        return call.params.get("topology", "") if call else ""

    items.sort(key=order)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_in_shared_memory():
    before = set(os.listdir("/dev/shm"))
    yield
    drop_worlds()
    left = [name for name in os.listdir("/dev/shm") if name not in before and "trainyard" in name]
    assert not left, f"left in /dev/shm: {left}"
