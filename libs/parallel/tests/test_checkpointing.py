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
