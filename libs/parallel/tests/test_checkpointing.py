"""Activation checkpointing changes memory only: gradients are equal bit for bit, dropout included."""

import pytest
import torch

import zoo
from training import fresh, own_slice

CONFIGS = {
    "one": (1, {}),
    "pp2": (2, {"partitions": 2}),
    "tp2": (2, {"tensor_parallel_degree": 2, "ddp": True}),
    "pp2tp2": (4, {"partitions": 2, "tensor_parallel_degree": 2, "ddp": True}),
    "sdp2": (2, {"ddp": True, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 0}),
}


class Drops(zoo.GPT):
    def __init__(self, smp=None):
        super().__init__(dropout=0.1)
        for block in self.blocks:
            block.fc2 = torch.nn.Sequential(block.fc2, torch.nn.Dropout(0.1))
        self.runs = [0] * len(self.blocks)
        for index, block in enumerate(self.blocks):
            block.ln1.register_forward_pre_hook(lambda module, args, i=index: self.count(i))

    def count(self, index):
        self.runs[index] += 1


def gradients(rank, config, checkpointed):
    smp = fresh({"microbatches": 2, **config})
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float64)
    if smp.tp_size() > 1:
        with smp.tensor_parallelism():
            net = Drops()
    else:
        net = Drops()
    model = smp.DistributedModel(net)
    if checkpointed:
        smp.set_activation_checkpointing(model.get_module().blocks)

    @smp.step
    def train_step(model, x, y):
        loss = zoo.loss_of("gpt", model(x), y)
        model.backward(loss)
        return loss

    torch.manual_seed(rank)
    x, y = (own_slice(t, smp) for t in zoo.data("gpt", 0))
    train_step(model, x, y)
    before = list(net.runs)
    train_step(model, x, y)
    whole = {n: getattr(p.grad, "full_tensor", lambda g=p.grad: g)() for n, p in model.local_named_parameters()}
    return whole, [now - then for now, then in zip(net.runs, before)]


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_equal_bit_for_bit(worlds, name):
    ranks, config = CONFIGS[name]
    plain = worlds(ranks).run(gradients, config, False)
    again = worlds(ranks).run(gradients, config, True)
    for (expected, once), (found, twice) in zip(plain, again):
        assert all(torch.equal(found[n], gradient) for n, gradient in expected.items())
        # Two micro-batches: each local block ran twice, or four times where its forward is repeated.
        assert sum(once) > 0 and twice == [2 * count for count in once]


def by_call(rank):
    import smdistributed.modelparallel.torch.patches.checkpoint as full

    smp = fresh({})
    assert full.checkpoint is smp.checkpoint
    torch.manual_seed(0)
    seq = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    runs = []
    seq[1].register_forward_pre_hook(lambda module, args: runs.append(1))
    x = torch.ones(2, 3, requires_grad=True)
    expected = seq(x)
    out = smp.checkpoint_sequential(seq, x)
    first = len(runs)
    out.sum().backward()
    return torch.equal(out, expected), first, len(runs), torch.equal(smp.checkpoint(seq[0], x), seq[0](x))


def test_checkpoint_by_call(worlds):
    equal, first, runs, one = worlds(1).run(by_call)[0]
    assert equal and one
    # Hooks of the member itself are outside of what is repeated.
    assert first == runs == 2


class Layers(torch.nn.Module):
    """A sequence of layers with dropout between two others; counts runs of each layer."""

    def __init__(self, layers=6, width=8):
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, width), torch.nn.Linear(width, 1)
        self.layers = torch.nn.Sequential(
            *(
                torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Dropout(0.1))
                for _ in range(layers)
            )
        )
        self.runs = [0] * layers
        for index, layer in enumerate(self.layers):
            layer[0].register_forward_pre_hook(lambda module, args, i=index: self.count(i))

    def count(self, index):
        self.runs[index] += 1

    def forward(self, x):
        return self.last(self.layers(self.first(x)))


def layered(rank, config, strategy, when="after"):
    """(gradients, runs in one step, segments on this rank, what the offloader has left) of two steps."""
    smp = fresh({"microbatches": 3, **config})
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float64)
    net = Layers()
    if strategy and when == "before":
        smp.set_activation_checkpointing(net.layers, strategy=strategy)
    model = smp.DistributedModel(net)
    if strategy and when == "after":
        smp.set_activation_checkpointing(net.layers, strategy=strategy)

    @smp.step
    def train_step(x):
        loss = model(x).square().mean()
        model.backward(loss)
        return loss

    torch.manual_seed(rank)
    x = torch.randn(6, 4)
    train_step(x)
    if strategy and when == "after the partition":
        smp.set_activation_checkpointing(net.layers, strategy=strategy)
    before = list(net.runs)
    train_step(x)
    names = [name for name, _ in model.local_named_parameters()]
    gradients = {name: p.grad for name, p in model.local_named_parameters()}
    assert names == list(gradients) and not any("members" in name for name in names)
    parts = net.layers.__dict__.get("_smp_segments", {"parts": None})["parts"]
    own = [len(part.members) for part in parts or () if not any(p.is_meta for p in part.parameters())]
    left = model.offloader and (model.offloader.host_bytes, model.offloader.loaded, sum(map(len, model.offloader.tasks)))
    return gradients, [now - then for now, then in zip(net.runs, before)], own, left


@pytest.mark.parametrize("name", ["one", "pp2"])
def test_strategies_and_offloading_leave_gradients_as_they_are(worlds, name):
    ranks, config = CONFIGS[name]
    plain = worlds(ranks).run(layered, config, None)
    local = [sum(count > 0 for count in runs) for _, runs, _, _ in plain]
    for strategy, size in (("each", None), ("group_2", 2), ("contiguous", 6)):
        for offload in (False, True):
            for when in ("before", "after", "after the partition"):
                if (when == "after the partition") and (offload or ranks == 1):
                    continue
                found = worlds(ranks).run(layered, {**config, "offload_activations": offload}, strategy, when)
                for (expected, once, _, _), (gradients, runs, parts, left), layers in zip(plain, found, local):
                    assert all(torch.equal(gradients[n], gradient) for n, gradient in expected.items())
                    # Made again once for each run; a new plan follows every layer once more.
                    followed = when == "after the partition" and size is not None
                    assert runs == [2 * count + followed for count in once]
                    if size:
                        whole, rest = divmod(layers, size)
                        assert parts == [size] * whole + [rest] * (rest > 0)
                    assert left == ((0, 0, 0) if offload else None)


def whole(rank, options):
    """What is said of a checkpointed module that lies on two stages."""
    import warnings

    smp = fresh({"partitions": 2, "microbatches": 2, **options})
    torch.set_default_dtype(torch.float64)
    net = Layers(2)
    for index, part in enumerate((net.first, net.layers[0], net.layers[1], net.last)):
        smp.set_partition(part, index // 2)
    # Not the sequence, whose members would be checkpointed one by one.
    outer = Outer(net)
    smp.set_activation_checkpointing(outer.inner)
    model = smp.DistributedModel(outer)

    @smp.step
    def forward(x):
        return model(x)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            forward(torch.ones(2, 4))
        except ValueError as error:
            return str(error)
    return [str(warning.message) for warning in caught if "checkpointed" in str(warning.message)]


class Outer(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def test_a_module_on_several_stages_is_not_checkpointed_silently(worlds):
    for said in worlds(2).run(whole, {"auto_partition": False, "default_partition": 0}):
        assert said.startswith("inner cannot be checkpointed as a whole: it lies on several stages")
    for said in worlds(2).run(whole, {}):
        assert len(said) == 1 and said[0].startswith("inner cannot be checkpointed as a whole")


def peak(rank, config, strategy="each", layers=12):
    from live import Live

    smp = fresh(config)
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float64)
    net = Layers(layers, width=64)
    model = smp.DistributedModel(net)
    smp.set_activation_checkpointing(net.layers, strategy=strategy)

    @smp.step
    def train_step(x):
        loss = model(x).square().mean()
        model.backward(loss)

    x = torch.randn(1024, 4)
    train_step(x)
    for parameter in net.parameters():
        parameter.grad = None
    live = Live((lambda: model.offloader.host_bytes) if model.offloader else lambda: 0)
    most = []
    if model.offloader is not None:
        original = model.offloader.unpack
        model.offloader.unpack = lambda kept: (original(kept), most.append(model.offloader.loaded))[0]
    with live:
        train_step(x)
    return live.peak, most


def test_offloaded_inputs_are_not_on_the_device(worlds):
    layer = 1024 * 64 * 8
    config = {"activation_loading_horizon": 2}
    kept, _ = worlds(1).run(peak, config)[0]
    away, loaded = worlds(1).run(peak, {**config, "offload_activations": True})[0]
    # Twelve inputs at the end of the forward, against four: one in use, two loaded early, one on its way.
    assert kept >= 12 * layer
    assert away <= kept - (12 - 4 - 1) * layer
    assert max(loaded) == 2 and loaded[-1] == 0
    farther, loaded = worlds(1).run(peak, {"activation_loading_horizon": 5, "offload_activations": True})[0]
    assert max(loaded) == 5 and farther > away


def test_strategies_that_cannot_be_are_refused():
    from trainyard_parallel.checkpointing import set_activation_checkpointing
    from trainyard_parallel.errors import SMPConfigError

    with pytest.raises(SMPConfigError, match="strategy is 'group_0' but must be each, contiguous or group_N"):
        set_activation_checkpointing(torch.nn.Sequential(), strategy="group_0")
    with pytest.raises(SMPConfigError, match="the module is a ModuleList"):
        set_activation_checkpointing(torch.nn.ModuleList(), strategy="contiguous")
