"""The same training under the library, in the style of SageMaker's scripts; runs inside a rank."""

import torch
import torch.distributed as dist

import zoo
from trainyard_parallel.state import state


def forget():
    """A rank that has called nothing yet."""
    for group in state._groups.values():
        if group is not dist.group.WORLD:
            dist.destroy_process_group(group)
    state.clear()


def fresh(config):
    """A rank that has called nothing but smp.init, with this configuration."""
    import smdistributed.modelparallel.torch as smp

    forget()
    smp.init(config)
    return smp


def own_slice(tensor, smp):
    """The samples of this replica."""
    if smp.state.cfg.prescaled_batch:
        return tensor.chunk(smp.rdp_size())[smp.rdp_rank()]
    return tensor.chunk(smp.dp_size())[smp.dp_rank()]


def train(rank, config, kind="gpt", optimizer="adamw", options=None, steps=zoo.STEPS, prepare=None, wrap=None):
    """(losses averaged over replicas, whole weights) of `steps` steps."""
    smp = fresh(config)
    with_tp = smp.tp_size() > 1
    if with_tp:
        with smp.tensor_parallelism():
            model = zoo.make(kind, **(options or {}))
    else:
        model = zoo.make(kind, **(options or {}))
    if prepare is not None:
        prepare(smp, model)
    # As SageMaker's first samples do: the optimizer before the model where parameters stay the same.
    early = None if with_tp or smp.state.cfg.sharded_data_parallel_degree > 1 else zoo.make_optimizer(optimizer, model.parameters())
    model = smp.DistributedModel(model)
    opt = smp.DistributedOptimizer(early or zoo.make_optimizer(optimizer, model.parameters()))

    @smp.step
    def train_step(model, x, y):
        output = model(x)
        loss = zoo.loss_of(kind, output, y)
        model.backward(loss)
        return loss

    losses = []
    for step in range(steps):
        x, y = (own_slice(t, smp) for t in zoo.data(kind, step))
        opt.zero_grad()
        loss = train_step(model, x, y).reduce_mean()
        opt.step()
        dist.all_reduce(loss)
        losses.append(loss.item() / smp.size())
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return losses, weights


def compare(rank, config, kind="gpt", optimizer="adamw", options=None, prepare=None):
    """The largest relative differences of losses and of weights to one process."""
    losses, weights = train(rank, config, kind, optimizer, options, prepare=prepare)
    expected, reference = zoo.train_alone(kind, optimizer, **(options or {}))
    worst = max(abs(a - b) / abs(b) for a, b in zip(losses, expected))
    return worst, zoo.difference(weights, reference)
