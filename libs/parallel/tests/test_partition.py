"""The partition algorithm as pure functions."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from trainyard_parallel.partition import Node, partition, seats, segments

costs = st.lists(st.integers(1, 50), min_size=1, max_size=8)


@given(costs, st.data())
def test_segments_minimise_the_largest(values, draw):
    count = draw.draw(st.integers(1, len(values)))

    def largest(ends):
        return max(sum(values[a:b]) for a, b in zip([0, *ends], ends))

    ends = segments(values, count)
    assert len(ends) == count and ends[-1] == len(values)
    best = min(largest([*cut, len(values)]) for cut in combinations(range(1, len(values)), count - 1))
    assert largest(ends) == best


def test_seats_by_d_hondt():
    # The textbook example: 8 seats for 100, 80, 30 and 20 votes (in thousands).
    assert seats([100, 80, 30, 20], 8, [9] * 4) == [4, 3, 1, 0]
    assert seats([1, 1], 1, [1, 1]) == [1, 0]
    assert seats([100, 1], 2, [1, 5]) == [1, 1]


def chain(*weights):
    nodes = [Node(f"layer{i}", weight, weight) for i, weight in enumerate(weights)]
    return Node("", sum(weights), sum(weights), nodes)


def test_equal_layers_are_shared_equally():
    placed = partition(chain(1, 1, 1, 1), 2, 0.5)
    assert [placed[f"layer{i}"] for i in range(4)] == [0, 0, 1, 1]
    assert placed[""] == 0


def test_memory_weight_decides_what_is_balanced():
    nodes = [Node("big", 8, 1), Node("b", 1, 1), Node("c", 1, 1), Node("slow", 1, 8)]
    root = Node("", 11, 11, nodes)
    by_memory, by_compute = partition(root, 2, 1.0), partition(root, 2, 0.0)
    assert [by_memory[n.name] for n in nodes] == [0, 1, 1, 1]
    assert [by_compute[n.name] for n in nodes] == [0, 0, 0, 1]


def test_a_heavy_child_gets_several_stages():
    inner = Node("blocks", 9, 9, [Node(f"blocks.{i}", 3, 3) for i in range(3)])
    placed = partition(Node("", 10, 10, [Node("embedding", 1, 1), inner]), 3, 0.5)
    assert [placed[f"blocks.{i}"] for i in range(3)] == [0, 1, 2]
    assert placed["embedding"] == 0


@given(st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=5), min_size=1, max_size=5), st.integers(1, 5))
def test_stages_never_decrease_in_order_of_execution(groups, devices):
    nodes = [
        Node(str(i), sum(group), sum(group), [Node(f"{i}.{j}", w, w) for j, w in enumerate(group)])
        for i, group in enumerate(groups)
    ]
    total = sum(map(sum, groups))
    placed = partition(Node("", total, total, nodes), devices, 0.5)
    leaves = [placed[child.name] for node in nodes for child in node.children]
    assert leaves == sorted(leaves) and leaves[0] == 0 and max(leaves) < devices
    if devices <= len(leaves):
        assert set(leaves) == set(range(devices))
