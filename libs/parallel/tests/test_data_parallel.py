"""Data parallelism beyond the plain case: overlapped exchange, communication hooks, uneven inputs, saved partitions."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import zoo
from trainyard_parallel.reducer import Overlap
from training import fresh, own_slice

DDP = {"ddp": True}


def gradients(rank, config, overlapping, bucket_cap_mb, hook=None):
    """(gradients after two steps that accumulate, buckets that began before the backward ended)."""
    smp = fresh({**config, "microbatches": 3})
    model = smp.DistributedModel(
        zoo.make("gpt"), overlapping_allreduce=overlapping, bucket_cap_mb=bucket_cap_mb, backward_passes_per_step=2
    )
    seen = []
    if hook is not None:
        model.register_comm_hook((smp.get_dp_process_group(), smp.dp_size() * 3, seen), hook)

    @smp.step
    def train_step(model, x, y):
        loss = zoo.loss_of("gpt", model(x), y)
        model.backward(loss)
        return loss

    flying, start = [], Overlap.start
    Overlap.start = lambda self: (start(self), flying.append(len(self.flying)))
    try:
        for step in range(2):
            train_step(model, *(own_slice(t, smp) for t in zoo.data("gpt", step)))
    finally:
        Overlap.start = start
    ahead = (model._overlap.ahead, max(flying)) if flying else None
    return {name: p.grad.clone() for name, p in model.local_named_parameters()}, ahead, seen


def whole_gradients():
    model = zoo.make("gpt")
    for step in range(2):
        x, y = zoo.data("gpt", step)
        zoo.loss_of("gpt", model(x), y).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def close(found, expected, bound=1e-12):
    return all((found[n] - expected.get(n, found[n])).abs().max() <= bound * found[n].abs().max() for n in found)


@pytest.mark.parametrize("ranks, config", [(2, DDP), (4, {**DDP, "partitions": 2})], ids=["dp2", "pp2dp2"])
def test_buckets_are_exchanged_during_the_backward(worlds, ranks, config):
    expected = whole_gradients()
    late = worlds(ranks).run(gradients, config, False, 0.005)
    early = worlds(ranks).run(gradients, config, True, 0.005)
    for (plain, none, _), (found, ahead, _) in zip(late, early):
        assert none is None and ahead[0] > 2 and ahead[1] == 2
        assert close(found, plain, 1e-15) and close(found, expected)


def halving(state, bucket):
    """Sums in float32, and divides as SageMaker's library asks: by ranks and micro-batches."""
    group, divisor, seen = state
    seen.append((bucket.index(), bucket.is_last(), [tuple(g.shape) for g in bucket.gradients()] == [tuple(p.shape) for p in bucket.parameters()]))
    small = bucket.buffer().float() / divisor
    future = dist.all_reduce(small, group=group, async_op=True).get_future()
    return future.then(lambda done: done.value()[0].double())


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_communication_hook_replaces_the_exchange(worlds, overlapping):
    expected = whole_gradients()
    for found, _, seen in worlds(2).run(gradients, DDP, overlapping, 0.005, halving):
        assert close(found, expected, 1e-5) and not close(found, expected, 1e-12)
        assert [index for index, _, _ in seen] == list(range(len(seen))) and len(seen) > 2
        assert [last for _, last, _ in seen] == [False] * (len(seen) - 1) + [True] and all(fits for *_, fits in seen)


def twice(rank):
    smp = fresh(DDP)
    model = smp.DistributedModel(nn.Linear(2, 2))

    @smp.step
    def train_step(x):
        loss = model(x).sum()
        model.backward(loss)
        model.backward(model(x).sum())
        return loss

    try:
        train_step(torch.ones(2, 2))
    except RuntimeError as error:
        return str(error)


def test_a_gradient_after_its_exchange_is_refused(worlds):
    assert all("overlapping_allreduce=False" in message for message in worlds(2).run(twice))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(zoo.WIDTH, zoo.WIDTH)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.linear(x)


def uneven(rank, counts, by_initial, config):
    """Weights and the buffer after ranks trained on `counts[rank]` batches."""
    smp = fresh(config)
    torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)
    model = smp.DistributedModel(Counting() if smp.pp_size() == 1 else zoo.make("mlp"))
    opt = smp.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1))

    @smp.step
    def train_step(x, y):
        loss = F.mse_loss(model(x), y)
        model.backward(loss)
        return loss

    place = smp.dp_rank()
    with model.join(divide_by_initial_world_size=by_initial):
        for step in range(counts[place]):
            opt.zero_grad()
            train_step(*(t[place::2] for t in zoo.data("mlp", step)))
            opt.step()
    with model.join(enable=False):
        pass
    return {name: value.clone() for name, value in model.state_dict().items()}


def uneven_alone(counts, by_initial, kind):
    torch.manual_seed(3)
    model = Counting() if kind == "counting" else zoo.make("mlp")
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(max(counts)):
        opt.zero_grad()
        active = [place for place, count in enumerate(counts) if step < count]
        for place in active:
            x, y = (t[place::2] for t in zoo.data("mlp", step))
            (F.mse_loss(model(x), y) / (len(counts) if by_initial else len(active))).backward()
        opt.step()
    return dict(model.state_dict())


@pytest.mark.parametrize("counts", [(2, 4), (4, 1)])
@pytest.mark.parametrize("by_initial", [True, False])
def test_ranks_with_fewer_batches_wait_for_the_others(worlds, counts, by_initial):
    expected = uneven_alone(counts, by_initial, "counting")
    for found in worlds(2).run(uneven, counts, by_initial, DDP):
        assert zoo.difference({"weight": found["linear.weight"]}, {"weight": expected["linear.weight"]}) < 1e-12
        assert found["calls"] == max(counts)


def test_uneven_inputs_over_stages(worlds):
    expected = uneven_alone((3, 1), True, "mlp")
    for found in worlds(4).run(uneven, (3, 1), True, {**DDP, "partitions": 2}):
        assert zoo.difference(found, expected) < 1e-12


def sharded(rank):
    smp = fresh({**DDP, "shard_optimizer_state": True})
    model = smp.DistributedModel(nn.Linear(2, 2))
    try:
        with model.join():
            pass
    except RuntimeError as error:
        return str(error)


def test_uneven_inputs_do_not_go_with_sharded_states(worlds):
    assert all("join does not go with shard_optimizer_state" in message for message in worlds(2).run(sharded))


def partitioned(rank, options):
    smp = fresh({"partitions": 2, "microbatches": 2, **options})
    model = smp.DistributedModel(zoo.make("mlp"))

    @smp.step
    def forward(x):
        return model(x)

    try:
        forward(zoo.data("mlp", 0)[0])
    except ValueError as error:
        return str(error)
    return [name for name, _ in model.local_named_parameters()]


def test_a_partition_is_kept_and_used_again(worlds, tmp_path):
    import json

    path = str(tmp_path / "partition.json")
    first = worlds(2).run(partitioned, {"partition_file": path})
    saved = json.loads((tmp_path / "partition.json").read_text())
    assert saved["stages"] == 2
    assert worlds(2).run(partitioned, {"partition_file": path, "load_partition": True}) == first
    # What the file says counts, not the costs.
    saved["modules"] = {name: int(name.startswith("layers.") and name[7] > "0") for name in saved["modules"]}
    (tmp_path / "partition.json").write_text(json.dumps(saved))
    moved = worlds(2).run(partitioned, {"partition_file": path, "load_partition": True})
    assert moved[0] == ["layers.0.0.weight", "layers.0.0.bias"]
    saved["modules"].pop("layers.0")
    (tmp_path / "partition.json").write_text(json.dumps(saved))
    assert "is of another model: modules ['layers.0']" in worlds(2).run(partitioned, {"partition_file": path, "load_partition": True})[0]
