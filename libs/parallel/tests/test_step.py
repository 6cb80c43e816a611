"""What a script sees of steps, models and optimizers, on real ranks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from trainyard_parallel.errors import SMPConfigError, SMPNotAvailable, SMPRuntimeError, SMPUnsupportedPlacement
from training import fresh, own_slice


def raised(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        return str(error)
    raise AssertionError(f"{kind.__name__} was not raised")


def model_with_labels(rank, config):
    """A Hugging Face style step: the model computes its loss; evaluation without gradients; results on every rank."""
    smp = fresh(config)
    model = smp.DistributedModel(zoo.make("gpt"))
    opt = smp.DistributedOptimizer(zoo.make_optimizer("sgd", model.parameters()))
    traced = []

    @smp.step()
    def forward_backward(model, inputs):
        traced.append(smp.is_tracing())
        outputs = model(**inputs)
        model.backward(outputs["loss"])
        return outputs["loss"]

    @smp.step
    def forward_only(model, inputs):
        return model(**inputs)

    losses = []
    for step in range(2):
        ids, labels = (own_slice(t, smp) for t in zoo.data("gpt", step))
        opt.zero_grad()
        losses.append(forward_backward(model, {"ids": ids, "labels": labels}).reduce_mean().detach())
        opt.step()
    model.eval()
    with torch.no_grad():
        raw = forward_only(model, {"ids": ids, "labels": labels})
    with_grad_mode = forward_only(model, {"ids": ids})
    grads = [p.grad.clone() for p in model.local_parameters()]
    return {
        "losses": [loss.item() for loss in losses],
        "logits": raw["logits"].detach().concat().cpu(),
        "same": torch.equal(raw["logits"].concat(), with_grad_mode["logits"].concat()),
        "requires": with_grad_mode["logits"].outputs[0].requires_grad,
        "traced": any(traced),
        "grads": len(grads),
        "state": model.state_dict(),
    }


@pytest.mark.parametrize("config", [{"microbatches": 3}, {"microbatches": 3, "partitions": 2}])
def test_loss_inside_the_model_and_evaluation(worlds, config):
    ranks = config.get("partitions", 1)
    results = worlds(ranks).run(model_with_labels, config)
    model = zoo.make("gpt")
    opt = zoo.make_optimizer("sgd", model.parameters())
    expected = []
    for step in range(2):
        ids, labels = zoo.data("gpt", step)
        opt.zero_grad()
        loss = model(ids, labels)["loss"]
        loss.backward()
        opt.step()
        expected.append(loss.item())
    logits = model(ids)["logits"].detach()
    for found in results:
        assert found["losses"] == pytest.approx(expected, rel=1e-12)
        assert torch.allclose(found["logits"], logits, rtol=1e-10, atol=1e-12)
        assert found["same"] and found["traced"] == (ranks > 1) and found["grads"] > 0
        assert zoo.difference(found["state"], model.state_dict()) < 1e-12


def local_views(rank):
    smp = fresh({"partitions": 2, "microbatches": 2})
    inner = zoo.make("gpt")
    model = smp.DistributedModel(inner)
    early = raised(SMPRuntimeError, lambda: list(model.local_parameters()))
    twice = raised(SMPRuntimeError, smp.DistributedModel, inner)
    outside = raised(SMPRuntimeError, model, torch.zeros(2, 6, dtype=torch.long))
    seen = []
    removed = model.register_post_partition_hook(lambda m, o: seen.append("removed"))
    removed.remove()
    model.register_post_partition_hook(lambda m, o: seen.append((m.partitioned, o is opt)))
    opt = smp.DistributedOptimizer(zoo.make_optimizer("adamw", model.parameters()))
    before = sum(p.numel() for p in model.parameters())

    @smp.step
    def train_step(model, x, y):
        loss = zoo.loss_of("gpt", model(x), y)
        model.backward(loss)
        return loss

    train_step(model, *zoo.data("gpt", 0))
    opt.step()
    local = dict(model.local_named_parameters())
    return {
        "errors": (early, twice, outside),
        "seen": seen,
        "before": before,
        "local": sorted(local),
        "elements": sum(p.numel() for p in local.values()),
        "optimizer": sum(p.numel() for g in opt.param_groups for p in g["params"]),
        "moments": sum(s["exp_avg"].numel() for s in opt.state.values()),
        "partial": model.local_state_dict()["_smp_is_partial"],
        "modules": [name for name, _ in model.local_named_modules()],
    }


def test_after_the_first_step_a_rank_holds_its_stage_only(worlds):
    first, second = worlds(2).run(local_views)
    for found in (first, second):
        assert "not partitioned before the first step" in found["errors"][0]
        assert "one process has one smp.DistributedModel" in found["errors"][1]
        assert "outside a step with pipeline_parallel_degree 2" in found["errors"][2]
        assert found["seen"] == [(True, True)]
        assert found["elements"] == found["optimizer"] == found["moments"] < 0.8 * found["before"]
        assert found["partial"] is True
    # The tied weight is on both, under the name of each.
    shared = 32 * 16
    assert first["elements"] + second["elements"] == first["before"] + shared
    assert "wte.weight" in first["local"] and "blocks.3.fc1.weight" in second["local"]
    assert "blocks.3" in second["modules"] and "blocks.3" not in first["modules"]


class Backwards(nn.Module):
    """Not a chain under this placement: the part of stage 1 runs before that of stage 0."""

    def __init__(self, smp):
        super().__init__()
        with smp.partition(1):
            self.late = nn.Sequential(nn.Linear(4, 4))
        with smp.partition(0):
            self.early = nn.Linear(4, 4)

    def forward(self, x):
        return self.early(self.late(x))


class Placed(nn.Module):
    def __init__(self, smp):
        super().__init__()
        self.first = nn.Linear(zoo.WIDTH, zoo.WIDTH)
        with smp.partition(1):
            self.rest = nn.Sequential(nn.Linear(zoo.WIDTH, zoo.WIDTH), nn.Linear(zoo.WIDTH, zoo.WIDTH))

    def forward(self, x):
        return self.rest(self.first(x).tanh())


def manual(rank):
    config = {"partitions": 2, "microbatches": 2, "auto_partition": False, "default_partition": 0}

    def run(smp, inner, x):
        model = smp.DistributedModel(inner)

        @smp.step
        def train_step(x):
            loss = model(x).square().mean()
            model.backward(loss)
            return loss

        return train_step(x).reduce_mean().item(), model

    torch.set_default_dtype(torch.float64)
    smp = fresh(config)
    refused = raised(SMPUnsupportedPlacement, run, smp, Backwards(smp), torch.ones(4, 4))
    smp = fresh(config)
    wrong = raised(SMPConfigError, smp.partition, 2)
    torch.manual_seed(1)
    inner = Placed(smp)
    x = zoo.data("mlp", 0)[0]
    expected = inner(x).square().mean().item()
    loss, model = run(smp, inner, x)
    smp = fresh(config)
    late = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    smp.set_partition(late[1], 1)
    run(smp, late, torch.ones(4, 4))
    moved = sorted(n for n, _ in smp.state.model.local_named_parameters())
    return refused, wrong, loss, expected, sorted(n for n, _ in model.module.named_parameters()), moved


def test_manual_partition_and_what_is_refused(worlds):
    for rank, (refused, wrong, loss, expected, names, moved) in enumerate(worlds(2).run(manual)):
        assert "early is on stage 0 but is called after late on stage 1" in refused
        assert "partition 2 does not exist; pipeline_parallel_degree is 2" in wrong
        assert loss == pytest.approx(expected, rel=1e-12)
        assert moved == [f"{rank}.bias", f"{rank}.weight"]


def accumulate(rank, passes):
    """`passes` steps without zero_grad equal one step on all samples with gradients summed."""
    smp = fresh({"ddp": True, "microbatches": 2})
    model = smp.DistributedModel(zoo.make("mlp"), backward_passes_per_step=passes)

    @smp.step
    def train_step(x, y):
        loss = F.mse_loss(model(x), y)
        model.backward(loss)
        return loss

    for step in range(passes):
        train_step(*(own_slice(t, smp) for t in zoo.data("mlp", step)))
    return [p.grad for p in model.local_parameters()]


def test_gradients_accumulate_over_backward_passes(worlds):
    results = worlds(2).run(accumulate, 3)
    model = zoo.make("mlp")
    for step in range(3):
        x, y = zoo.data("mlp", step)
        F.mse_loss(model(x), y).backward()
    for found in results:
        for gradient, parameter in zip(found, model.parameters()):
            assert torch.allclose(gradient, parameter.grad, rtol=1e-12, atol=1e-15)


class Branches(nn.Module):
    """One branch is used by rank 0 only, another by nobody."""

    def __init__(self):
        super().__init__()
        self.always, self.sometimes, self.never = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x, sometimes):
        x = self.always(x)
        return self.sometimes(x) if sometimes else x


def unused(rank):
    torch.set_default_dtype(torch.float64)
    smp = fresh({"ddp": True})
    torch.manual_seed(0)
    model = smp.DistributedModel(Branches())
    x = torch.ones(2, 4)
    # Without the decorator, as allowed without pipeline parallelism.
    model.backward(model(x, rank == 0).sum())
    return {name: None if p.grad is None else p.grad.sum().item() for name, p in model.module.named_parameters()}


def test_parameters_without_gradient_count_as_zero_or_stay_without(worlds):
    first, second = worlds(2).run(unused)
    assert first == second
    assert first["never.weight"] is None and first["sometimes.bias"] == 2 * 4 / 2


def sum_loss(rank):
    smp = fresh({"microbatches": 3, "partitions": 2})
    model = smp.DistributedModel(zoo.make("mlp"), average_grads_across_microbatches=False)

    @smp.step(non_split_inputs=["weight"], input_split_axes={"y": 1})
    def train_step(x, y, weight, note):
        assert weight.shape == (zoo.WIDTH,) and note == "kept"
        loss = ((model(x) - y.t()) * weight).square().sum()
        model.backward(loss)
        return {"loss": loss, "note": note}

    x, y = zoo.data("mlp", 0)
    out = train_step(x, y.t().contiguous(), weight=torch.ones(zoo.WIDTH), note="kept")
    bad = raised(SMPRuntimeError, train_step, x[:10], y.t()[:, :10], torch.ones(zoo.WIDTH), "kept")
    return out["loss"].reduce_sum().item(), out["note"], bad, {n: p.grad for n, p in model.local_named_parameters()}


def test_sum_losses_whole_inputs_and_other_axes(worlds):
    model = zoo.make("mlp")
    x, y = zoo.data("mlp", 0)
    loss = (model(x) - y).square().sum()
    loss.backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    for total, note, bad, gradients in worlds(2).run(sum_loss):
        assert total == pytest.approx(loss.item(), rel=1e-12) and note == "kept"
        assert "argument x has size 10 along axis 0" in bad
        for name, gradient in gradients.items():
            assert torch.allclose(gradient, expected[name], rtol=1e-11, atol=1e-13), name


def dropout(rank):
    smp = fresh({"microbatches": 2, "partitions": 2})
    model = smp.DistributedModel(zoo.make("gpt", dropout=0.5))

    @smp.step
    def train_step(x, y):
        loss = zoo.loss_of("gpt", model(x), y)
        model.backward(loss)
        return loss

    x, y = zoo.data("gpt", 0)
    torch.manual_seed(3)
    first = train_step(x, y).reduce_mean().item()
    torch.manual_seed(3)
    again = train_step(x, y).reduce_mean().item()
    return first, again


def test_the_first_step_uses_no_random_numbers_for_tracing(worlds):
    for first, again in worlds(2).run(dropout):
        assert first == again


def absent(rank):
    smp = fresh({})
    return [
        raised(SMPNotAvailable, smp.register_parameter),
        raised(SMPNotAvailable, smp.optimizers.FusedLamb),
        raised(SMPNotAvailable, smp.DistributedModel, nn.Linear(2, 2), trace_execution_times=True),
    ]


def test_what_is_absent_says_so(worlds):
    assert all("not available yet" in message for message in worlds(1).run(absent)[0])


def test_fused_adam_is_adamw():
    import smdistributed.modelparallel.torch as smp

    parameter = nn.Parameter(torch.ones(2))
    optimizer = smp.optimizers.FusedAdam([parameter], lr=0.5, weight_decay=0.1)
    assert type(optimizer) is torch.optim.AdamW and optimizer.defaults["weight_decay"] == 0.1
    assert type(smp.optimizers.FusedAdam([parameter], adam_w_mode=False)) is torch.optim.Adam
    with pytest.raises(ValueError, match="bias_correction is False"):
        smp.optimizers.FusedAdam([parameter], bias_correction=False)


def sizes(rank):
    """Bytes of optimizer state per rank under each sharding, and of parameters."""
    found = {}
    for key, config in {
        "plain": {},
        "state": {"shard_optimizer_state": True},
        "all": {"sharded_data_parallel_degree": 4, "sdp_param_persistence_threshold": 0},
    }.items():
        smp = fresh({"ddp": True, **config})
        model = smp.DistributedModel(zoo.make("gpt"))
        opt = smp.DistributedOptimizer(zoo.make_optimizer("adamw", model.parameters()))

        @smp.step
        def train_step(x, y):
            loss = zoo.loss_of("gpt", model(x), y)
            model.backward(loss)
            return loss

        train_step(*(own_slice(t, smp) for t in zoo.data("gpt", 0)))
        opt.step()
        local = [getattr(p, "to_local", lambda p=p: p)() for p in model.local_parameters()]
        moments = [s["exp_avg"] for s in opt.state.values()]
        found[key] = (
            sum(p.numel() for p in local),
            sum(getattr(m, "to_local", lambda m=m: m)().numel() for m in moments),
        )
    return found


def test_sharding_divides_what_it_says(worlds):
    for found in worlds(4).run(sizes):
        whole = found["plain"][0]
        assert found["plain"][1] == whole
        assert found["state"][0] == whole and found["state"][1] <= whole / 4 + 4
        # Each tensor's first axis is padded to a multiple of 4.
        assert found["all"][0] <= whole / 4 * 1.1 and found["all"][1] == found["all"][0]


def clipped(rank, tp):
    config = {"ddp": True, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100, "sdp_gradient_clipping": 0.05}
    smp = fresh({**config, "tensor_parallel_degree": tp})
    with smp.tensor_parallelism(tp > 1):
        net = zoo.make("gpt")
    model = smp.DistributedModel(net)
    opt = smp.DistributedOptimizer(zoo.make_optimizer("sgd", model.parameters()))

    @smp.step
    def train_step(x, y):
        loss = zoo.loss_of("gpt", model(x), y)
        model.backward(loss)
        return loss

    train_step(*(own_slice(t, smp) for t in zoo.data("gpt", 0)))
    opt.step()
    return opt._global_grad_norm.item(), model.state_dict()


@pytest.mark.parametrize("tp", [1, 2])
def test_sharded_data_parallel_clips_the_global_norm(worlds, tp):
    model = zoo.make("gpt")
    opt = zoo.make_optimizer("sgd", model.parameters())
    x, y = zoo.data("gpt", 0)
    zoo.loss_of("gpt", model(x), y).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05).item()
    opt.step()
    for found, weights in worlds(2 * tp).run(clipped, tp):
        assert found == pytest.approx(norm, rel=1e-12) and norm > 0.05
        assert zoo.difference(weights, model.state_dict()) < 1e-12


def test_the_launcher_wins_over_the_script(worlds):
    found = worlds(2).run(launched, '{"partitions": 2, "microbatches": 3}')
    assert found == [(2, 3)] * 2


def launched(rank, parameters):
    import os

    os.environ["SM_HP_MP_PARAMETERS"] = parameters
    try:
        smp = fresh({"microbatches": 1, "ddp": True})
        return smp.pp_size(), smp.state.cfg.microbatches
    finally:
        del os.environ["SM_HP_MP_PARAMETERS"]
