"""Ranks and groups against the published tables, and properties over many degrees."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard_parallel.topology import Topology


@pytest.mark.parametrize(
    "order, digits",
    [
        ("DPT", "000 001 010 011 100 101 110 111"),
        ("PTD", "000 100 001 101 010 110 011 111"),
        ("TPD", "000 100 010 110 001 101 011 111"),
    ],
)
def test_digits_of_eight_ranks(order, digits):
    topology = Topology(8, pp=2, tp=2, order=order)
    found = ["{D}{P}{T}".format(**topology.digits(rank)) for rank in range(8)]
    assert " ".join(found) == digits


def test_cluster_keeps_a_model_on_neighbours_and_spread_apart():
    cluster, spread = Topology(8, 2, 1, "DPT"), Topology(8, 2, 1, "TPD")
    assert cluster.groups["mp"] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert cluster.groups["dp"] == [(0, 2, 4, 6), (1, 3, 5, 7)]
    assert spread.groups["mp"] == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert spread.groups["dp"] == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_the_documented_figure_of_eight_gpus_is_dtp():
    topology = Topology(8, pp=2, tp=2, order="DTP")
    found = ["{P}{T}{D}".format(**topology.digits(rank)) for rank in range(8)]
    assert found == "000 100 010 110 001 101 011 111".split()
    assert [topology.group_of("mp", r).index(r) for r in range(8)] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [topology.group_of("dp", r).index(r) for r in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_shard_groups_of_the_documented_32_gpus():
    topology = Topology(32, pp=1, tp=4, sdp=4)
    assert topology.group_of("tp", 0) == (0, 1, 2, 3)
    assert topology.group_of("rdp", 0) == tuple(range(0, 32, 4))
    assert topology.group_of("sdp", 0) == (0, 4, 8, 12)
    assert topology.group_of("sdp", 28) == (16, 20, 24, 28)


@st.composite
def topologies(draw):
    pp, tp, sdp, replicas = (draw(st.integers(1, 4)) for _ in range(4))
    order = draw(st.sampled_from(["".join(p) for p in permutations("DPT")]))
    return Topology(pp * tp * sdp * replicas, pp, tp, order, sdp)


@given(topologies())
def test_groups_of_each_kind_partition_the_world(topology):
    sizes = {
        "world": topology.world,
        "mp": topology.pp * topology.tp,
        "pp": topology.pp,
        "tp": topology.tp,
        "dp": topology.tp * topology.rdp,
        "rdp": topology.rdp,
        "sdp": topology.sdp,
        "replica": topology.rdp // topology.sdp,
    }
    for kind, groups in topology.groups.items():
        assert sorted(rank for group in groups for rank in group) == list(range(topology.world))
        assert all(len(group) == sizes[kind] and list(group) == sorted(group) for group in groups)
    assert sizes["mp"] * sizes["rdp"] == sizes["pp"] * sizes["dp"] == topology.world


@given(topologies())
def test_groups_meet_where_their_digits_say(topology):
    for rank in range(topology.world):
        mine = {kind: set(topology.group_of(kind, rank)) for kind in topology.groups}
        assert mine["mp"] & mine["dp"] == mine["tp"]
        assert mine["mp"] & mine["rdp"] == {rank}
        assert mine["pp"] & mine["dp"] == {rank}
        assert mine["sdp"] & mine["replica"] == {rank}
        assert mine["sdp"] | mine["replica"] <= mine["rdp"]


@given(topologies())
def test_the_right_most_letter_varies_fastest(topology):
    sizes = {"D": topology.rdp, "P": topology.pp, "T": topology.tp}
    for rank in range(topology.world):
        digits, number = topology.digits(rank), 0
        for letter in topology.order:
            number = number * sizes[letter] + digits[letter]
        assert number == rank
