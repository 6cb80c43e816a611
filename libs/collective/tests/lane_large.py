"""Tensors of more than 2^31 bytes and elements: `script/test lane_large.py` (10 GiB of memory, a minute)."""

import pytest
import torch
import torch.distributed as dist

from ranks import World

NUMEL = 2**31 + 2**27 + 5  # 2.1 GiB of int8
# Two tensors for each of two ranks, and what compares them.
NEEDED_BYTES = 10 << 30


def available_bytes():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def is_all(x, value):
    # In parts: summing up a comparison as a whole makes int64 of it, eight times the tensor.
    return all(bool((part == value).all()) for part in x.split(2**28))


def check_large(rank, size):
    x = torch.full((NUMEL,), rank + 1, dtype=torch.int8)
    x[-1] = rank
    dist.all_reduce(x)
    total = size * (size + 1) // 2
    for at in (0, 2**31 - 1, 2**31, NUMEL - 2):
        assert x[at] == total, at
    assert x[-1] == sum(range(size))
    assert is_all(x[:-1], total)
    x.fill_(7 if rank == 0 else 0)
    dist.broadcast(x, 0)
    assert is_all(x, 7)
    # A gathered half on each side of 2^31.
    half = x[: NUMEL // size].fill_(rank + 1)
    out = torch.empty(half.numel() * size, dtype=torch.int8)
    dist.all_gather_into_tensor(out, half)
    for r, part in enumerate(out.chunk(size)):
        assert is_all(part, r + 1)


@pytest.mark.parametrize("hosts", [[0, 0], [0, 1]], ids=["1x2", "2x1"])
def test_more_than_two_to_the_31_elements(hosts):
    if available_bytes() < NEEDED_BYTES:
        pytest.skip(f"needs {NEEDED_BYTES >> 30} GiB of free memory, {available_bytes() >> 30} GiB are")
    world = World(2, hosts, timeout_seconds=600)
    try:
        world.run(check_large, seconds=900)
        world.close()
    finally:
        world.kill()
