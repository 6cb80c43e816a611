"""Hosts that really have nothing in common but a network."""

import time

import pytest
import torch
import torch.distributed as dist

from network import Network, why_impossible
from ranks import World
from test_matrix import check_movers, check_reductions, run_sizes
from test_semantics import check_messages, measure_traffic, read_hosts, run_program

pytestmark = pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))


@pytest.fixture(params=[(2, 2), (2, 1)], ids=["2x2", "2x1"])
def world(request):
    hosts, seats = request.param
    network = Network(hosts)
    world = None
    try:
        world = World(
            hosts * seats,
            namespaces=[network.names[rank // seats] for rank in range(hosts * seats)],
            timeout_seconds=60,
        )
        world.network = network
        world.seats = seats
        yield world
    finally:
        if world is not None:
            world.kill()
        network.close()


def test_hosts_are_found_without_being_named_and_all_operations_work(world):
    hosts = [rank // world.seats for rank in range(world.size)]
    assert all(found == hosts for found in world.run(read_hosts))
    world.run(run_sizes, check_reductions, (torch.float32, "SUM"), [0, 1, 1023, 400001])
    world.run(run_sizes, check_movers, (torch.float32,), [0, 1, 1023, 400001])
    world.run(check_messages)
    world.run(run_program, 1, 25)
    world.run(measure_traffic, 1000)
    world.close()


def test_packets_that_are_lost_are_sent_again(world):
    for host in range(2):
        world.network.make_lossy(host, megabits=100)
    world.run(run_sizes, check_reductions, (torch.float32, "SUM"), [5, 400001])
    world.run(run_program, 2, 10)
    assert all(world.network.lost_packets(host) > 0 for host in range(2))
    world.close()


def wait_for_peer(rank, size):
    started = time.monotonic()
    try:
        while True:
            dist.all_reduce(torch.ones(1000))
            time.sleep(0.01)
    except dist.DistBackendError as error:
        return str(error), time.monotonic() - started


def test_when_a_host_vanishes_then_the_others_raise(world):
    world.run(read_hosts)
    world.start(wait_for_peer)
    time.sleep(0.5)
    world.network.cut(1)
    for rank in range(world.size):
        kind, value = world.answer(rank, 20)
        assert kind == "ok", value
        message = value[0]
        assert "rank" in message and ("lost" in message or "died" in message or "left" in message), message
