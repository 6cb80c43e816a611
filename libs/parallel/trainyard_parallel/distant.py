"""Tensors whose values only the last stage has: how other ranks run a step function without its model's results.

The step function `loss = loss_fn(model(x), y)` runs on every rank of a pipeline, but the logits are computed on the last
stage, and sending them costs more than all else that a small model sends. Elsewhere they are *distant*: they know shape
and dtype. An operation on them is followed on fake tensors, as often as its operands look new, and written on a *tape*.
What cannot be followed (a value is read, random numbers are drawn, a tensor that is here is changed) fetches the values
of the *roots*, which are the model's results, repeats the tape on them in its order, and goes on with ordinary tensors.
So code may do what it likes, and pays for the transfer when it looks.
"""

import weakref

import torch

from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.handle import SIMPLE, map_leaves
from trainyard_parallel.private import DispatchMode, FakeTensorMode, make_wrapper, tree_flatten, tree_unflatten, without_handles

# What fake tensors answer as values would.
METADATA = {
    getter.__get__
    for getter in (
        *(torch.Tensor.shape, torch.Tensor.dtype, torch.Tensor.device, torch.Tensor.layout, torch.Tensor.ndim),
        *(torch.Tensor.is_cuda, torch.Tensor.is_sparse, torch.Tensor.is_quantized, torch.Tensor.is_meta),
        *(torch.Tensor.itemsize, torch.Tensor.nbytes, torch.Tensor.requires_grad),
    )
} | {
    *(torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.nelement, torch.Tensor.element_size),
    *(torch.Tensor.stride, torch.Tensor.is_contiguous, torch.Tensor.is_floating_point, torch.Tensor.is_complex),
    *(torch.Tensor.__len__, torch.Tensor.get_device, torch.numel, torch.is_floating_point, torch.is_complex),
    *(torch.is_tensor, torch.Tensor.ndimension, torch.Tensor.type),
}
# They change a tensor that is here without saying so in their signature.
CHANGERS = {torch.batch_norm, torch.instance_norm, torch.nn.functional.batch_norm, torch.nn.functional.instance_norm}


class Cell:
    """One tensor on the tape: what is known of it, and its value once that is here."""

    def __init__(self, fake):
        self.fake, self.value = fake, None


class Distant(torch.Tensor):
    @staticmethod
    def __new__(cls, tape, cell):
        like = cell.fake
        return make_wrapper(cls, like.shape, strides=like.stride(), dtype=like.dtype, device=like.device)

    def __init__(self, tape, cell):
        self.tape, self.cell = tape, cell
        tape.made.append(weakref.ref(self))

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with without_handles():
            operands = []
            map_leaves(lambda leaf: operands.append(leaf) if isinstance(leaf, Distant) else None, (args, kwargs or {}))
            unknown = [operand for operand in operands if operand.cell.value is None]
            if unknown:
                if func in METADATA:
                    return func(*map_leaves(fake_of, args), **map_leaves(fake_of, kwargs or {}))
                tape = unknown[0].tape
                steps = tape.follow(func, args, kwargs or {}) if len(unknown) == len(operands) else None
                if steps is not None:
                    return tape.write(func, args, kwargs or {}, operands, steps)
                for tape in {operand.tape for operand in unknown}:
                    tape.play()
            return func(*map_leaves(value_of, args), **map_leaves(value_of, kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        # Whatever does not come by torch's functions, such as a collective.
        map_leaves(lambda leaf: leaf.tape.play() if isinstance(leaf, Distant) else None, (args, kwargs or {}))
        return func(*map_leaves(value_of, args), **map_leaves(value_of, kwargs or {}))


def fake_of(leaf):
    return leaf if not isinstance(leaf, Distant) else leaf.cell.fake if leaf.cell.value is None else leaf.cell.value


def value_of(leaf):
    return (leaf.cell if isinstance(leaf, Distant) else leaf).value if isinstance(leaf, (Distant, Cell)) else leaf


class DrawsNumbers(Exception):
    """An operation would draw random numbers, whose values and number must be those of the other ranks."""


class WithoutNumbers(DispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise DrawsNumbers
        return func(*args, **(kwargs or {}))


class Follower:
    """What operations give, by what they are called with; kept over all steps of a pipeline."""

    def __init__(self, device):
        self.device, self.mode, self.known, self.fakes = device, FakeTensorMode(), {}, {}

    def fake(self, shape, dtype):
        if (shape, dtype) not in self.fakes:
            with self.mode:
                self.fakes[shape, dtype] = torch.empty(shape, dtype=dtype, device=self.device)
        return self.fakes[shape, dtype]

    def look_up(self, func, args, kwargs):
        """(leaves, structure) of the result, a leaf being a fake tensor or the index of an operand that was changed;
        None where values are needed.
        """
        key = self.key(func, args, kwargs)
        if key is None:
            return self.try_out(func, args, kwargs)
        if key not in self.known:
            self.known[key] = self.try_out(func, args, kwargs)
        return self.known[key]

    def key(self, func, args, kwargs):
        seen = []
        try:
            key = func, torch.get_default_dtype(), autocast_of(self.device), look(args, seen), look(kwargs, seen)
            hash(key)
            return key
        except TypeError:
            # An argument of unknown meaning, whose value might matter.
            return None

    def try_out(self, func, args, kwargs):
        if func in CHANGERS:
            return None
        distant, here = {}, {}

        def stand_in(leaf):
            if isinstance(leaf, Distant):
                if id(leaf) not in distant:
                    like = leaf.cell.fake
                    distant[id(leaf)] = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device)
                return distant[id(leaf)]
            if isinstance(leaf, torch.Tensor):
                if id(leaf) not in here:
                    # Not through the mode's own conversion, which remembers tensors and would keep changes to a fake.
                    here[id(leaf)] = torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=leaf.device)
                return here[id(leaf)]
            return leaf

        try:
            with torch.no_grad(), self.mode:
                args, kwargs = map_leaves(stand_in, args), map_leaves(stand_in, kwargs)
                before = [(fake, fake.shape, fake.stride()) for fake in distant.values()]
                versions = [fake._version for fake in here.values()]
                with WithoutNumbers():
                    leaves, spec = tree_flatten(func(*args, **kwargs))
                is_changed = versions != [fake._version for fake in here.values()]
        except Exception:
            # With values the function works, or says itself what is wrong.
            return None
        if is_changed or not leaves or any(fake.shape != shape or fake.stride() != stride for fake, shape, stride in before):
            return None
        if not all(isinstance(leaf, torch.Tensor) for leaf in leaves) or any(leaf is fake for leaf in leaves for fake in here.values()):
            return None
        order = {id(fake): index for index, fake in enumerate(distant.values())}
        return [order.get(id(leaf), leaf) for leaf in leaves], spec


def look(item, seen):
    """What matters of an argument; `seen` collects the distant tensors. Not a closure: that would keep them alive."""
    kind = type(item)
    if kind is Distant:
        if not any(item is other for other in seen):
            seen.append(item)
        fake = item.cell.fake
        return next(i for i, other in enumerate(seen) if other is item), fake.shape, fake.stride(), fake.dtype, fake.device
    if isinstance(item, torch.Tensor):
        return kind, item.shape, item.stride(), item.dtype, item.device
    if kind in (tuple, list, torch.Size):
        return kind, tuple([look(part, seen) for part in item])
    if kind is dict:
        return tuple([(name, look(part, seen)) for name, part in item.items()])
    if kind is slice:
        return kind, look((item.start, item.stop, item.step), seen)
    if kind in SIMPLE or kind is torch.memory_format or item is Ellipsis:
        return kind, item
    raise TypeError


def autocast_of(device):
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def version_of(tensor):
    return None if tensor.is_inference() else tensor._version


class Tape:
    """Operations of one step on distant tensors, in order.

    `fetch()` gives the roots' values by their names, once `wait()` has returned.
    """

    def __init__(self, follower, wait, fetch):
        self.follower, self.wait, self.fetch = follower, wait, fetch
        self.roots, self.lines, self.made, self.values = {}, [], [], None

    @property
    def is_played(self):
        return self.values is not None

    def root(self, name, shape, dtype):
        """A tensor that is distant until the tape is played."""
        if self.is_played:
            return self.values[name]
        self.roots[name] = Cell(self.follower.fake(shape, dtype))
        return Distant(self, self.roots[name])

    def follow(self, func, args, kwargs):
        return self.follower.look_up(func, args, kwargs)

    def write(self, func, args, kwargs, operands, steps):
        leaves, spec = steps
        unique = list({id(operand): operand for operand in operands}.values())
        results = [unique[leaf] if isinstance(leaf, int) else Distant(self, Cell(leaf)) for leaf in leaves]
        versions = []

        def kept(leaf):
            if isinstance(leaf, Distant):
                return leaf.cell
            if isinstance(leaf, torch.Tensor):
                versions.append((leaf, version_of(leaf)))
            return leaf

        call = func, map_leaves(kept, args), map_leaves(kept, kwargs)
        self.lines.append((*call, [result.cell for result in results], versions, autocast_of(self.follower.device)))
        return tree_unflatten(results, spec)

    def play(self):
        """All that was written gets values; the tape is empty and its tensors are ordinary from now on."""
        self.wait()
        if self.is_played:
            return
        self.values = self.fetch()
        for name, cell in self.roots.items():
            cell.value = self.values[name]
        device = self.follower.device.type
        for func, args, kwargs, cells, versions, autocast in self.lines:
            if any(version_of(operand) != version for operand, version in versions):
                raise SMPRuntimeError(
                    f"a tensor was changed in place after {getattr(func, '__name__', func)} used it with a result of the model, "
                    "and before the step function read what that gave; read it before the change, or change a copy"
                )
            with torch.no_grad(), torch.autocast(device, autocast, enabled=autocast is not None):
                result = func(*map_leaves(value_of, args), **map_leaves(value_of, kwargs))
            for cell, value in zip(cells, tree_flatten(result)[0]):
                cell.value = value
        self.lines.clear()

    def is_needed(self, apart=()):
        """Whether somebody still has a tensor without value whose id is not in `apart`."""
        living = (ref() for ref in self.made)
        return any(one is not None and one.cell.value is None and id(one) not in apart for one in living)
