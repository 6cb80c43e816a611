"""Which pipeline stage each module goes to: pure functions over a small tree.

The algorithm is that of arXiv 2111.05972. Words: *cost* of a node is its share of
memory and compute, weighted by `memory_weight`; a node's *devices* are the
stages that its subtree may use; *seats* are the devices of a segment.

A node hands its devices down: its ordered children are cut into contiguous
segments that minimise the largest segment cost, segments get devices in order by
D'Hondt's method, and a segment with several nodes and several devices is cut
again. A node itself lives on its first device. Ties go to the lower index.

Two rules differ from the paper, because stages here are a chain. There a segment
without a seat goes to its parent's first device, to which control returns; here it
goes to the last device handed out before it, so stages never decrease in order of
execution. And a segment gets no more seats than it can be cut into: a stage without
a module would break the chain.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Node:
    """A module: its own name, ordered children, and what its whole subtree weighs (any units, additive)."""

    name: str
    memory: float
    compute: float
    children: list = field(default_factory=list)


def segments(costs, count):
    """Cuts [c0, c1, …] into `count` contiguous non-empty segments with the least largest sum; returns end indexes."""
    n = len(costs)
    prefix = [0.0]
    for cost in costs:
        prefix.append(prefix[-1] + cost)
    # best[k][i]: least largest sum of the first i costs in k segments, with the cut that gives it.
    best = {(1, i): (prefix[i], 0) for i in range(1, n + 1)}
    for k in range(2, count + 1):
        for i in range(k, n + 1):
            best[k, i] = min((max(best[k - 1, j][0], prefix[i] - prefix[j]), j) for j in range(k - 1, i))
    ends, i = [], n
    for k in range(count, 0, -1):
        ends.append(i)
        i = best[k, i][1]
    return ends[::-1]


def seats(costs, count, capacities):
    """D'Hondt: how many of `count` devices each segment gets, none more than its capacity while another has room."""
    given = [0] * len(costs)
    for _ in range(count):
        winner = max(
            range(len(costs)), key=lambda i: (given[i] < capacities[i], costs[i] / (given[i] + 1), -i)
        )
        given[winner] += 1
    return given


def capacity(node):
    """How many stages a subtree can be cut into."""
    return max(1, sum(map(capacity, node.children)))


def partition(root, devices, memory_weight):
    """Returns {node name: stage} for the tree below `root` over stages 0 … devices-1."""

    def cost(node):
        memory = node.memory / root.memory if root.memory else 0
        compute = node.compute / root.compute if root.compute else 0
        return memory_weight * memory + (1 - memory_weight) * compute

    placed = {}
    queue = deque([(root, list(range(devices)))])
    while queue:
        node, own = queue.popleft()
        placed[node.name] = own[0]
        queue.extend(spread(node.children, own, cost))
    return placed


def spread(nodes, devices, cost):
    """[(node, its devices)] for ordered siblings."""
    if len(devices) == 1 or not nodes:
        return [(node, devices) for node in nodes]
    if len(nodes) == 1:
        return [(nodes[0], devices)]
    ends = segments([cost(node) for node in nodes], min(len(devices), len(nodes)))
    parts = [nodes[start:end] for start, end in zip([0, *ends], ends)]
    given = seats(
        [sum(map(cost, part)) for part in parts], len(devices), [sum(map(capacity, part)) for part in parts]
    )
    result, at = [], 0
    for part, count in zip(parts, given):
        # A segment without a seat stays where control is: on the last device handed out so far.
        own = devices[at : at + count] or [devices[max(at - 1, 0)]]
        at += count
        result += spread(part, own, cost)
    return result
