"""1000 random programs of 50 operations against the simulator: `script/test lane_programs.py` (20 to 30 minutes on two cores)."""

import pytest

from conftest import world_for
from test_semantics import run_program

PROGRAMS = 1000


@pytest.mark.parametrize("topology", ["1x2", "1x3", "1x4", "2x1", "2x2", "3x1", "3+1"])
@pytest.mark.parametrize("first", range(0, PROGRAMS, 50))
def test_random_programs_agree_with_a_simulator(topology, first):
    world = world_for(topology)
    for seed in range(first, first + 50):
        world.run(run_program, 10_000 + seed, 50)
