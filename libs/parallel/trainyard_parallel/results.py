"""Results on their way from the last stage of a pipeline to the others.

Every rank finishes the step function of every micro-batch with the model's *results*, and owns what it *returns*. Small
results are broadcast. Large ones, such as logits, are usually used for a loss only, so other ranks get distant tensors
in their place (distant.py), and only what the function returns of them is broadcast. Which that is, the ranks *agree* on
in the first step of a function for a shape, in which large results are broadcast too. If some rank looked at values in
that step, it always will, and they are always broadcast.

After any other step each rank tells the last stage whether it did look, unforeseen; then it is sent the large results.
"""

from math import prod

import torch
import torch.distributed as dist

from trainyard_parallel import chain, messages
from trainyard_parallel.distant import Distant, Tape, value_of
from trainyard_parallel.private import tree_flatten, tree_unflatten
from trainyard_parallel.suspension import current

# Bytes of a result that are always sent: a message of that size costs what an empty one does.
SMALL_BYTES = 1024
# Offsets in a packet suit every dtype.
ALIGNED = 16
EVERYTHING = "everything"


class Packet:
    """Tensors of given shapes and dtypes in one buffer."""

    def __init__(self, layout, device):
        self.layout, ends = layout, [0]
        for shape, dtype in layout:
            ends.append(ends[-1] - -prod(shape) * dtype.itemsize // ALIGNED * ALIGNED)
        self.bytes = torch.zeros(ends[-1], dtype=torch.uint8, device=device)
        self.parts = [
            self.bytes[start : start + prod(shape) * dtype.itemsize].view(dtype).view(shape)
            for start, (shape, dtype) in zip(ends, layout)
        ]


class Exchange:
    """The results of one step of `owner`, the user's function. All ranks of the pipeline group make it and finish together."""

    def __init__(self, pipeline, plan, owner):
        self.pipeline, self.plan, self.owner = pipeline, plan, owner
        self.group, self.device = pipeline.group, pipeline.device
        self.count = len(pipeline.suspensions)
        self.is_last = pipeline.stage == pipeline.stages - 1
        self.source = dist.get_global_rank(self.group, pipeline.stages - 1)
        self.leaves, self.spec = tree_flatten(plan.result)
        self.agreed = plan.agreed.get(owner)
        self.is_first = self.agreed is None
        tensors = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, chain.Handle)]
        self.large = [] if self.agreed == EVERYTHING else [i for i in tensors if bytes_of(self.leaves[i].meta) > SMALL_BYTES]
        self.broadcasts = [i for i in tensors if self.is_first or i not in self.large]
        self.tape = Tape(pipeline.follower, self.wait, self.fetch)
        self.near, self.returned_values, self.has_asked, self.is_over = None, None, False, False

    def run_ahead(self, chosen):
        """Runs the functions of these micro-batches until their backward, where they need nothing for it."""
        if self.broadcasts or not self.large:
            return
        for i in chosen:
            self.pipeline.suspensions[i].resume(self.result(i))

    def finish_all(self):
        self.is_over = True
        self.own = [tree_flatten(result)[0] for result in self.pipeline.results] if self.is_last else None
        self.near = self.broadcast_results(self.broadcasts)
        if self.is_last:
            returned = [self.pipeline.finish(i, None) for i in range(self.count)]
            if self.large:
                self.end_as_last([tree_flatten(result)[0] for result in returned])
            return returned
        returned = [tree_flatten(self.pipeline.finish(i, self.result)) for i in range(self.count)]
        if self.large:
            self.end_elsewhere([leaves for leaves, _ in returned])
        return [tree_unflatten([value_of(leaf) for leaf in leaves], spec) for leaves, spec in returned]

    def result(self, index):
        """The model's result in a micro-batch, for a function that has not got it yet; not on the last stage."""
        return tree_unflatten([self.value(i, leaf, index) for i, leaf in enumerate(self.leaves)], self.spec)

    def value(self, place, leaf, index):
        if not isinstance(leaf, chain.Handle):
            return leaf
        if place not in self.large:
            return self.near[place][index]
        return self.tape.root((index, place), leaf.meta.shape, leaf.meta.dtype)

    # ---- the last stage ----

    def end_as_last(self, returned):
        if self.is_first:
            self.agree(False, set(), dict(alike(returned)))
        if self.agreed != EVERYTHING:
            self.broadcast_returned(returned)
        for stage in range(self.pipeline.stages - 1) if not self.is_first else ():
            asked, peer = torch.zeros(1, dtype=torch.int8), dist.get_global_rank(self.group, stage)
            dist.recv(asked, peer, group=self.group)
            if asked:
                dist.send(self.packed_results(self.large).bytes, peer, group=self.group)

    # ---- other stages ----

    def end_elsewhere(self, returned):
        tape = self.tape
        if self.is_first:
            distant = {i for leaves in returned for i, leaf in enumerate(leaves) if isinstance(leaf, Distant)}
            # What is returned comes from the last stage; whoever keeps other tensors looks at them.
            own = {id(leaf) for leaves in returned for leaf in leaves}
            self.agree(tape.is_played or tape.is_needed(own), distant, None)
        if self.agreed != EVERYTHING and self.returned_values is None:
            self.broadcast_returned(None)
        for index, leaves in enumerate(returned):
            for i, leaf in enumerate(leaves):
                if isinstance(leaf, Distant) and leaf.cell.value is None and i in (self.returned_values or {}):
                    value = self.returned_values[i][index]
                    leaf.cell.value = value if value.shape == leaf.shape else None
        if tape.is_needed():
            tape.play()
        if not self.is_first and not self.has_asked:
            self.tell(0)

    def tell(self, asks):
        self.has_asked = True
        dist.send(torch.full((1,), asks, dtype=torch.int8), self.source, group=self.group)

    def wait(self):
        """Values are there when the schedule has ended."""
        if not self.is_over:
            current.suspension.suspend("values", None)

    def fetch(self):
        """Values of the roots: {(micro-batch, place): value}"""
        if self.is_first:
            columns = self.near
        else:
            # The last stage broadcasts before it answers.
            if self.returned_values is None:
                self.broadcast_returned(None)
            self.tell(1)
            packet = self.packet(self.large)
            dist.recv(packet.bytes, self.source, group=self.group)
            columns = dict(zip(self.large, packet.parts))
        return {(index, i): columns[i][index] for index in range(self.count) for i in self.large}

    # ---- together ----

    def packet(self, chosen):
        return Packet([((self.count, *self.leaves[i].meta.shape), self.leaves[i].meta.dtype) for i in chosen], self.device)

    def packed_results(self, chosen):
        packet = self.packet(chosen)
        for i, part in zip(chosen, packet.parts):
            torch.stack([leaves[i] for leaves in self.own], out=part)
        return packet

    def broadcast_results(self, chosen):
        """{place among the results: values by micro-batch}"""
        if not chosen:
            return {}
        packet = self.packed_results(chosen) if self.is_last else self.packet(chosen)
        dist.broadcast(packet.bytes, self.source, group=self.group)
        return {i: part.unbind() for i, part in zip(chosen, packet.parts)}

    def agree(self, looks, distant, layout):
        """What the last stage will broadcast: {place among the returned leaves: (shape, dtype)}, or every result."""
        said = messages.allgather((looks, distant, layout), messages.CommGroup.PP_GROUP)
        wanted, layout = sorted(set().union(*(places for _, places, _ in said))), said[-1][2]
        is_enough = not any(looks for looks, _, _ in said) and all(i in layout for i in wanted)
        self.agreed = self.plan.agreed[self.owner] = {i: layout[i] for i in wanted} if is_enough else EVERYTHING

    def broadcast_returned(self, returned):
        """Sets `returned_values`: {place: values by micro-batch}; none if the function now returns something else."""
        self.returned_values = {}
        if not self.agreed:
            return
        is_right = torch.tensor([self.is_last and self.agreed.items() <= dict(alike(returned)).items()])
        layout = [((self.count, *shape), dtype) for shape, dtype in self.agreed.values()]
        if self.device.type == "cpu":
            packet = Packet([*layout, (is_right.shape, is_right.dtype)], self.device)
            packet.parts[-1].copy_(is_right)
            is_right = packet.parts[-1]
        else:
            # Apart and on the host, so that no rank waits for a device.
            dist.broadcast(is_right, self.source, group=self.group)
            packet = Packet(layout, self.device)
        if self.is_last and is_right:
            for i, part in zip(self.agreed, packet.parts):
                torch.stack([leaves[i].detach() for leaves in returned], out=part)
        dist.broadcast(packet.bytes, self.source, group=self.group)
        if is_right:
            self.returned_values = {i: part.unbind() for i, part in zip(self.agreed, packet.parts)}
        else:
            self.plan.agreed[self.owner] = EVERYTHING


def bytes_of(tensor):
    return tensor.numel() * tensor.element_size()


def alike(returned):
    """(place, (shape, dtype)) of the returned leaves that are equal tensors in every micro-batch."""
    if len(set(map(len, returned))) > 1:
        return
    for i, column in enumerate(zip(*returned)):
        if all(isinstance(leaf, torch.Tensor) for leaf in column) and len({(leaf.shape, leaf.dtype) for leaf in column}) == 1:
            yield i, (tuple(column[0].shape), column[0].dtype)
