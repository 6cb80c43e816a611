"""Parameters that get memory only when it is known which rank holds them.

Inside `delay_param_initialization` every tensor operation runs on meta tensors and is *recorded*. Later each rank
*replays* the record in its order, so random numbers are the same as without delay, and lets go of every tensor that is
not its own once nothing reads it any more. A rank's peak is its share plus the largest tensor in the making, not the
model.

Recorded tensors are regions of *buffers*, since views and parameters share memory with what they were made from. An
operation that overwrites a whole buffer begins a new one: first values, which constructors make, are not kept until a
model's own initialisation writes the second.

Python code that looks at a value (`item`, `tolist`) gets it at once, computed from its own history; where that history
draws random numbers it is refused, since they would be drawn out of order.
"""

import functools
import gc
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.private import DispatchMode, initialisers, tree_flatten, tree_map, tree_unflatten
from trainyard_parallel.state import state
from trainyard_parallel.tensor import is_distributed
from trainyard_parallel.tensor import tensor_parallelism as mark_tensor_parallelism

META = torch.device("meta")
OVERWRITES = {"normal_", "uniform_", "zero_", "fill_", "copy_", "bernoulli_", "random_", "exponential_", "log_normal_"}


@dataclass(eq=False)
class Buffer:
    """Memory of a recorded tensor: `storage` exists between its first and its last operation."""

    size_bytes: int
    device: torch.device
    storage: torch.UntypedStorage | None = None
    operations: list = field(default_factory=list)
    last_write: "Operation | None" = None
    reads: list = field(default_factory=list)
    unfinished: int = 0
    wanted: list = field(default_factory=list)


@dataclass(frozen=True)
class Region:
    buffer: Buffer
    dtype: torch.dtype
    size: tuple
    stride: tuple
    offset: int

    def tensor(self):
        if self.buffer.storage is None:
            self.buffer.storage = torch.UntypedStorage(self.buffer.size_bytes, device=self.buffer.device)
        return torch.empty(0, dtype=self.dtype, device=self.buffer.device).set_(
            self.buffer.storage, self.offset, self.size, self.stride
        )


@dataclass(eq=False)
class Operation:
    func: object
    leaves: list
    spec: object
    # Buffers that its outputs live in, by their position; None where an output is a view or no tensor.
    makes: list
    touches: set
    after: set
    is_random: bool
    # What creation without a dtype means, which scripts change.
    dtype: torch.dtype = field(default_factory=torch.get_default_dtype)
    generator: torch.Tensor | None = None
    is_done: bool = False

    def run(self):
        if self.generator is not None:
            torch.set_rng_state(self.generator)
        torch.set_default_dtype(self.dtype)
        leaves = [leaf.tensor() if isinstance(leaf, Region) else leaf for leaf in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.spec)
        with torch.no_grad():
            result = self.func(*args, **kwargs)
        for buffer, out in zip(self.makes, tree_flatten(result)[0]):
            if buffer is not None:
                buffer.storage = out.untyped_storage()
        for buffer in self.touches:
            buffer.unfinished -= 1
        self.is_done = True


class Recording:
    """Everything that was recorded since the first delay; contexts may follow each other."""

    def __init__(self):
        self.operations = []
        self.buffers = {}
        # Meta storages must live as long as their addresses name buffers.
        self.alive = []
        # As it was at the start, and as recording has last seen it: recorded operations do not advance it.
        self.start = self.generator = torch.get_rng_state()

    # ---- recording ----

    def __call__(self, func, args, kwargs):
        leaves, spec = tree_flatten((args, kwargs))
        known = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        mine = [leaf for leaf in known if self.buffer_of(leaf) is not None]
        asked = kwargs.get("device")
        if known and not mine or not known and asked is not None and torch.device(asked).type == "meta":
            # Tensors from outside, or asked to be without memory.
            return func(*args, **kwargs)
        try:
            result = func(*tree_map(to_meta, args), **self.on_meta(func, kwargs, known))
            outputs = tree_flatten(result)[0]
            if any(not isinstance(out, torch.Tensor) for out in outputs):
                raise NotImplementedError
        except (NotImplementedError, RuntimeError):
            if not mine:
                raise
            return func(*tree_map(self.now, args), **tree_map(self.now, kwargs))
        mutated = [leaf for leaf, is_written in self.written(func, args, kwargs) if is_written]
        if not mutated and outputs and all(self.buffer_of(out) is not None for out in outputs):
            # A view: geometry says it all.
            return result
        if mutated and self.buffer_of(mutated[0]) is None:
            # A tensor from outside is written: it has memory and needs the values.
            return func(*tree_map(self.now, args), **tree_map(self.now, kwargs))
        device = torch.device(asked) if asked is not None else self.buffer_of(mine[0]).device if mine else torch.device("cpu")
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        is_overwriting = func._schema.name.split("::")[1] in OVERWRITES
        self.record(func, leaves, spec, mutated, outputs, device, is_random, is_overwriting)
        return result

    def call(self, function, tensor, args, kwargs):
        """Records a whole function that fills the tensor from random numbers."""
        leaves, spec = tree_flatten(((tensor, *args), kwargs))
        self.record(function, leaves, spec, [tensor], [], None, is_random=True, is_overwriting=True)
        return tensor

    def record(self, func, leaves, spec, mutated, outputs, device, is_random, is_overwriting):
        if is_overwriting and covers(mutated[0], leaves):
            old = self.buffer_of(mutated[0])
            self.buffers[address(mutated[0])] = Buffer(old.size_bytes, old.device)
        regions = [self.region(leaf) for leaf in leaves]
        operation = Operation(func, regions, spec, [], set(), set(), is_random)
        if operation.is_random and not torch.equal(self.generator, torch.get_rng_state()):
            # The script has seeded since.
            operation.generator = self.generator = torch.get_rng_state()
        writes = {self.buffer_of(leaf) for leaf in mutated}
        for out in outputs:
            buffer = self.buffer_of(out)
            if buffer is None:
                buffer = self.buffers[address(out)] = Buffer(out.untyped_storage().nbytes(), device)
                self.alive.append(out.untyped_storage())
                writes.add(buffer)
                operation.makes.append(buffer)
            else:
                operation.makes.append(None)
        operation.touches = {region.buffer for region in regions if isinstance(region, Region)} | writes
        for buffer in operation.touches:
            operation.after |= {buffer.last_write} - {None}
            if buffer in writes:
                operation.after |= set(buffer.reads)
                buffer.last_write, buffer.reads = operation, []
            else:
                buffer.reads.append(operation)
            buffer.operations.append(operation)
            buffer.unfinished += 1
        self.operations.append(operation)

    def buffer_of(self, tensor):
        return self.buffers.get(address(tensor)) if tensor.is_meta else None

    def region(self, leaf):
        if not isinstance(leaf, torch.Tensor) or self.buffer_of(leaf) is None:
            return leaf
        return Region(self.buffer_of(leaf), leaf.dtype, tuple(leaf.shape), leaf.stride(), leaf.storage_offset())

    @staticmethod
    def on_meta(func, kwargs, tensors):
        kwargs = tree_map(to_meta, kwargs)
        takes_device = any(argument.name == "device" for argument in func._schema.arguments)
        return {**kwargs, "device": META} if takes_device and (not tensors or kwargs.get("device") is not None) else kwargs

    @staticmethod
    def written(func, args, kwargs):
        for index, argument in enumerate(func._schema.arguments):
            given = args[index] if index < len(args) else kwargs.get(argument.name)
            for value in given if isinstance(given, (list, tuple)) else [given]:
                if isinstance(value, torch.Tensor):
                    yield value, argument.alias_info is not None and argument.alias_info.is_write

    # ---- values now ----

    def now(self, leaf):
        """The value of a recorded tensor, from what does not depend on random numbers."""
        if not isinstance(leaf, torch.Tensor) or self.buffer_of(leaf) is None:
            return leaf
        region = self.region(leaf)
        needed, open_ = set(), list(region.buffer.operations)
        while open_:
            operation = open_.pop()
            if operation not in needed and not operation.is_done:
                needed.add(operation)
                open_ += operation.after
        if any(operation.is_random for operation in needed):
            raise SMPRuntimeError(
                "code looks at a random value while parameter initialisation is delayed; create this module outside of "
                "smp.delay_param_initialization"
            )
        with default_dtype_kept():
            for operation in self.operations:
                if operation in needed:
                    operation.run()
        return region.tensor()

    # ---- replay ----

    @staticmethod
    def want(region, give):
        """`give(value)` is called in the replay when the recorded region has its last value."""
        region.buffer.wanted.append((region, give))

    def replay(self):
        """Runs what is left of the recording. The generator is then where creation without delay would have left it,
        unless the script has drawn or seeded since."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.start)
        with default_dtype_kept():
            for buffer in {buffer for buffer in self.buffers.values() if not buffer.unfinished}:
                finish(buffer)
            for operation in self.operations:
                self.run_with_followers(operation)
        if not torch.equal(before, self.generator):
            torch.set_rng_state(before)

    @staticmethod
    def run_with_followers(operation):
        """Also what has only waited for it and draws nothing, so that its inputs can go."""
        open_ = [operation]
        while open_:
            one = open_.pop()
            may_run = one is operation or not one.is_random and all(earlier.is_done for earlier in one.after)
            if one.is_done or not may_run:
                continue
            one.run()
            for buffer in one.touches:
                open_ += buffer.operations
                if not buffer.unfinished:
                    finish(buffer)


def finish(buffer):
    for region, give in buffer.wanted:
        give(region.tensor())
    buffer.storage, buffer.wanted, buffer.operations = None, [], []


@contextmanager
def default_dtype_kept():
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def address(tensor):
    return tensor.untyped_storage()._cdata


def to_meta(leaf):
    if isinstance(leaf, torch.device):
        return META
    return leaf.to(META) if isinstance(leaf, torch.Tensor) and not leaf.is_meta else leaf


def covers(target, leaves):
    """Whether it is all of its buffer, and nothing else that is read is."""
    others = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf is not target]
    is_whole = target.is_contiguous() and target.numel() * target.element_size() == target.untyped_storage().nbytes()
    return is_whole and not any(other.is_meta and address(other) == address(target) for other in others)


class Recorder(DispatchMode):
    def __init__(self, recording):
        super().__init__()
        self.recording = recording

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.recording(func, args, kwargs or {})

    def __enter__(self):
        self.originals = initialisers()
        for name, function in self.originals.items():
            setattr(nn.init, name, self.whole(function))
        return super().__enter__()

    def __exit__(self, *error):
        for name, function in self.originals.items():
            setattr(nn.init, name, function)
        return super().__exit__(*error)

    def whole(self, function):
        @functools.wraps(function)
        def initialise(tensor, *args, **kwargs):
            if self.recording.buffer_of(tensor) is None:
                return function(tensor, *args, **kwargs)
            return self.recording.call(function, tensor, args, kwargs)

        return initialise


@contextmanager
def delay_param_initialization(enabled=True):
    """Inside, tensors get no memory; parameters get it when the model is wrapped (pipeline degree 1) or partitioned.

    Each rank then makes the values that creation without delay makes with the same seed, and keeps its own. Create the
    model inside and do nothing else with its parameters before wrapping it.
    """
    if not enabled:
        yield
        return
    if state.recording is None:
        state.recording = Recording()
    with Recorder(state.recording):
        yield


@contextmanager
def resumed():
    """Inside, what is done with recorded tensors is recorded too."""
    with delay_param_initialization(state.recording is not None):
        yield


def is_recorded(tensor):
    return state.recording is not None and state.recording.buffer_of(tensor) is not None


def settle_buffers(module):
    """Gives buffers (masks, frequencies) their values, which code between modules reads."""
    if state.recording is None:
        return
    for buffer in module.buffers():
        if is_recorded(buffer):
            become(buffer, state.recording.now(buffer).clone())


def materialize(parameters):
    """Gives these parameters memory and values, on this rank; ends the delay."""
    if state.recording is None:
        return
    # What only cycles of references hold, as graphs of plans, would keep tensors from taking other contents.
    gc.collect()
    for parameter in parameters:
        if is_recorded(parameter):
            give = functools.partial(become_on_device, parameter)
            state.recording.want(state.recording.region(parameter), give)
    state.recording.replay()
    state.recording = None


def recorded_parameters(module):
    """{name: what is recorded of it}, to be asked for before FSDP makes new parameters."""
    return {name: state.recording.region(p) for name, p in module.named_parameters() if is_recorded(p)}


def fill_shards(module, recorded, copy):
    """Gives a module that was sharded without memory its shards, one whole tensor at a time; ends the delay.

    `copy(target, value)` writes a whole tensor into a parameter. All ranks take the values of the first of each group
    of data-parallel ranks, so every rank must call it.
    """
    if state.recording is None:
        return
    gc.collect()
    targets = dict(module.named_parameters())
    for name in recorded:
        if not isinstance(targets[name], DTensor):
            become(targets[name], torch.empty_like(targets[name], device=state.process.device))
    attributes = {name: dict(targets[name].__dict__) for name in recorded}
    values = [buffer.clone() for buffer in module.buffers()]
    module.to_empty(device=state.process.device)
    with torch.no_grad():
        for buffer, value in zip(module.buffers(), values):
            buffer.copy_(value)
    # The parameters may be new ones again.
    targets = dict(module.named_parameters())
    for name, region in recorded.items():
        targets[name].__dict__.update(attributes[name])
        state.recording.want(region, functools.partial(spread_and_copy, copy, targets[name]))
    state.recording.replay()
    state.recording = None


@torch.no_grad()
def spread_and_copy(copy, target, value):
    kind = "rdp" if is_distributed(target) else "dp"
    value = value.to(state.process.device)
    dist.broadcast(value, state.ranks(kind)[0], group=state.group(kind))
    copy(target, value)


def become_on_device(target, value):
    become(target, value.to(state.process.device))


def become(target, value):
    """The tensor stays the same object, with its attributes, and gets other contents."""
    new = nn.Parameter(value, requires_grad=target.requires_grad) if isinstance(target, nn.Parameter) else value
    new.__dict__.update(target.__dict__)
    torch.utils.swap_tensors(target, new)


@contextmanager
def model_creation(tensor_parallelism=False, dtype=None, zero_init=False, **tensor_parallel_config):
    """Creates a model in `dtype` (default: torch's), delayed with `delayed_parameter_initialization`, and with
    `tensor_parallelism` as in `smp.tensor_parallelism`, whose keywords are the rest. `zero_init`, which asks for shards
    at creation, has no effect: the delay does that."""
    state.require_init()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or before)
    try:
        with (
            mark_tensor_parallelism(tensor_parallelism, **(tensor_parallel_config if tensor_parallelism else {})),
            delay_param_initialization(state.cfg.delayed_parameter_initialization),
        ):
            yield
    finally:
        torch.set_default_dtype(before)
