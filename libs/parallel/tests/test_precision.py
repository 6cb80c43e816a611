"""Half precision: trajectories equal a plain FP16 optimizer in one process; overflows, clipping, saved states."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

import zoo
from training import fresh, own_slice

FP16, BF16 = {"fp16": True}, {"bf16": True}
PP2, TP2, DDP = {"pipeline_parallel_degree": 2}, {"tensor_parallel_degree": 2, "ddp": True}, {"ddp": True}
SDP2 = {**DDP, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100, "sdp_gradient_clipping": 1e9}


def dynamic(first):
    return {"dynamic_loss_scale": True, "dynamic_loss_args": {"init_scale": first, "scale_window": 2}}


def make(kind, smp=None):
    """In float32: what half precision starts from."""
    if smp is not None and smp.tp_size() > 1:
        with smp.tensor_parallelism():
            return zoo.make(kind).to(torch.float32)
    return zoo.make(kind).to(torch.float32)


def batch(kind, step):
    x, y = zoo.data(kind, step)
    return x.float() if x.is_floating_point() else x, y.float() if y.is_floating_point() else y


def prepare(config, kind="gpt", scale=None, optimizer="sgd"):
    smp = fresh({"microbatches": 2, **config})
    inner = make(kind, smp)
    model = smp.DistributedModel(inner)
    opt = smp.DistributedOptimizer(zoo.make_optimizer(optimizer, model.parameters()), **(scale or {}))

    @smp.step
    def train_step(model, x, y):
        loss = zoo.loss_of(kind, model(x), y)
        model.backward(loss)
        return loss

    return smp, model, opt, train_step


def mean_over_ranks(loss):
    loss = loss.detach().clone()
    dist.all_reduce(loss)
    return loss.item() / dist.get_world_size()


def train(rank, config, kind="gpt", scale=None, clip=None, steps=range(6), optimizer="sgd", overflow_at=None):
    smp, model, opt, train_step = prepare(config, kind, scale, optimizer)
    found = {"losses": [], "norms": [], "overflows": [], "scales": []}
    for step in steps:
        x, y = (own_slice(t, smp) for t in batch(kind, step))
        opt.zero_grad()
        found["losses"].append(mean_over_ranks(train_step(model, x, y).reduce_mean()))
        if step == overflow_at and rank == smp.size() - 1:
            gradient = next(p.grad for p in model.local_parameters() if p.grad is not None)
            getattr(gradient, "to_local", lambda: gradient)().view(-1)[-1] = float("inf")
        if clip is not None:
            found["norms"].append(float(opt.clip_master_grads(clip)))
        opt.step()
        found["overflows"].append(opt.overflow)
        found["scales"].append(opt.loss_scale)
    found["weights"] = {name: value.detach().clone() for name, value in model.state_dict().items()}
    found["masters"] = [p.detach().dtype for group in opt.param_groups for p in group["params"]]
    return found


def alone(kind, dtype, clip=None, scale=None, steps=range(6), optimizer="sgd", overflow_at=None):
    """Written without the library: half model, FP32 masters, dynamic loss scale of window 2."""
    model = make(kind).to(dtype)
    parameters = list(model.parameters())
    masters = [nn.Parameter(p.detach().float()) for p in parameters]
    opt = zoo.make_optimizer(optimizer, masters)
    dynamic, scale, last_overflow = scale is not None, scale or 1.0, -1
    found = {"losses": [], "norms": [], "overflows": [], "scales": []}
    for step in steps:
        for p in parameters:
            p.grad = None
        losses = []
        for x, y in zip(*(t.chunk(2) for t in batch(kind, step))):
            output = model(x.to(dtype) if x.is_floating_point() else x)
            output = {k: v.float() for k, v in output.items()} if isinstance(output, dict) else output.float()
            losses.append(zoo.loss_of(kind, output, y))
            (losses[-1] * (scale / 2)).backward()
        found["losses"].append((sum(losses) / 2).item())
        for p, master in zip(parameters, masters):
            master.grad = p.grad.float() / scale
        overflow = not all(p.grad.isfinite().all() for p in parameters) or step == overflow_at
        if clip is not None:
            found["norms"].append(-1.0 if overflow else nn.utils.clip_grad_norm_(masters, clip).item())
        if not overflow:
            opt.step()
            with torch.no_grad():
                for p, master in zip(parameters, masters):
                    p.copy_(master)
        if dynamic and overflow:
            scale, last_overflow = scale / 2, step
        elif dynamic and (step - last_overflow) % 2 == 0:
            scale *= 2
        found["overflows"].append(overflow)
        found["scales"].append(scale)
    found["weights"] = dict(model.state_dict())
    return found


def check(found, expected, loss_bound, weight_bound):
    assert found["overflows"] == expected["overflows"] and found["scales"] == expected["scales"]
    assert found["losses"] == pytest.approx(expected["losses"], rel=loss_bound)
    assert found["norms"] == pytest.approx(expected["norms"], rel=max(loss_bound, 1e-6) * 10)
    assert set(found["masters"]) == {torch.float32}
    assert zoo.difference(found["weights"], expected["weights"]) <= weight_bound


@pytest.mark.parametrize("kind, optimizer", [("mlp", "sgd"), ("gpt", "adamw")])
def test_one_rank_equals_a_plain_fp16_optimizer_bit_for_bit(worlds, kind, optimizer):
    found = worlds(1).run(train, FP16, kind, dynamic(2.0**20), None, range(10), optimizer)[0]
    expected = alone(kind, torch.float16, scale=2.0**20, steps=range(10), optimizer=optimizer)
    check(found, expected, 0, 0)
    # The scale falls, steps are taken, and the scale grows again.
    assert expected["overflows"][0] and not expected["overflows"][-1] or 2 < sum(expected["overflows"]) < 9


CONFIGS = {
    "pp2": (2, PP2),
    "tp2": (2, TP2),
    "dp2": (2, DDP),
    "sdp2": (2, SDP2),
    "shards2": (2, {**DDP, "shard_optimizer_state": True}),
    "pp2dp2shards": (4, {**PP2, **DDP, "shard_optimizer_state": True}),
    "pp2tp2": (4, {**PP2, **TP2}),
}
# Sums over ranks round once more: a few units in the last place of each type (2⁻¹¹ and 2⁻⁸).
BOUNDS = {torch.float16: (1e-3, 4e-3), torch.bfloat16: (5e-3, 2e-2)}


@pytest.mark.parametrize("name", CONFIGS)
def test_many_ranks_follow_one_process_and_skip_together(worlds, name):
    ranks, config = CONFIGS[name]
    clip = None if "sharded_data_parallel_degree" in config else 0.5
    for dtype, scale, overflow_at in ((torch.float16, 2.0**10, 1), (torch.bfloat16, None, None)):
        half = {"fp16": True} if dtype == torch.float16 else {"bf16": True}
        results = worlds(ranks).run(
            train, {**config, **half}, "gpt", scale and dynamic(scale), clip, range(6), "sgd", overflow_at
        )
        expected = alone("gpt", dtype, clip, scale, overflow_at=overflow_at)
        for found in results:
            check(found, expected, *BOUNDS[dtype])


def resumed(rank, config, path):
    """Ten steps, and five steps, a save, a new model, a load and five steps more; overflows on the way."""
    scale = dynamic(2.0**18)
    straight = train(rank, config, "gpt", scale, steps=range(10), optimizer="adamw")
    smp, model, opt, train_step = prepare(config, "gpt", scale, "adamw")

    def go(model, opt, train_step, steps):
        for step in steps:
            opt.zero_grad()
            train_step(model, *(own_slice(t, smp) for t in batch("gpt", step)))
            opt.step()

    go(model, opt, train_step, range(5))
    smp.save_checkpoint(path, "half", model=model, optimizer=opt)
    masters = [p.detach().clone() for p in opt.optimizer.param_groups[0]["params"]]
    smp, model, opt, train_step = prepare(config, "gpt", scale, "adamw")
    smp.resume_from_checkpoint(path, "half")
    loaded = []
    model.register_post_partition_hook(lambda m, o: loaded.append([p.detach().clone() for p in o.param_groups[0]["params"]]))
    go(model, opt, train_step, range(5, 10))
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    same = all(torch.equal(a, b) for a, b in zip(loaded[0], masters)) and len(loaded[0]) == len(masters)
    return zoo.difference(weights, straight["weights"]), same, opt.loss_scale == straight["scales"][-1], straight["overflows"]


@pytest.mark.parametrize("config", [{**PP2, **FP16}, {**DDP, **FP16, "shard_optimizer_state": True}], ids=["pp2", "shards2"])
def test_a_saved_fp16_state_goes_on_bit_for_bit(worlds, config, tmp_path):
    for difference, masters, scale, overflows in worlds(2).run(resumed, config, str(tmp_path)):
        assert difference == 0 and masters and scale and 0 < sum(overflows) < 9


def norms(rank, config):
    """Clipping without half precision, twice: in float64 the norm is exact."""
    smp = fresh({"microbatches": 2, **config})
    if smp.tp_size() > 1:
        with smp.tensor_parallelism():
            inner = zoo.make("gpt")
    else:
        inner = zoo.make("gpt")
    model = smp.DistributedModel(inner)
    opt = smp.DistributedOptimizer(zoo.make_optimizer("sgd", model.parameters()))

    @smp.step
    def train_step(model, x, y):
        loss = zoo.loss_of("gpt", model(x), y)
        model.backward(loss)
        return loss

    train_step(model, *(own_slice(t, smp) for t in zoo.data("gpt", 0)))
    return opt.clip_master_grads(0.5).item(), opt.clip_master_grads(1e9).item()


def test_clipping_counts_every_gradient_once_in_any_precision(worlds):
    model = zoo.make("gpt")
    x, y = zoo.data("gpt", 0)
    zoo.loss_of("gpt", model(x), y).backward()
    expected = nn.utils.clip_grad_norm_(model.parameters(), 1e9).item()
    for ranks, config in ((2, PP2), (2, TP2), (4, {**PP2, **TP2}), (4, {**DDP, **PP2})):
        for before, after in worlds(ranks).run(norms, config):
            assert before == pytest.approx(expected, rel=1e-12) and after == pytest.approx(0.5, rel=1e-5)


def scaled(rank, config, overflow_at):
    """torch.autocast and smp.amp.GradScaler in the step, in the style of SageMaker's samples."""
    smp, model, opt, _ = prepare(config, "gpt")
    scaler = smp.amp.GradScaler(init_scale=2.0**8, growth_interval=3)

    @smp.step
    def train_step(model, x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = zoo.loss_of("gpt", model(x), y)
        model.backward(scaler.scale(loss))
        return loss

    found = []
    for step in range(5):
        opt.zero_grad()
        loss = train_step(model, *(own_slice(t, smp) for t in batch("gpt", step))).reduce_mean()
        if step == overflow_at and rank == 1:
            next(p.grad for p in model.local_parameters()).view(-1)[0] = float("nan")
        scaler.step(opt)
        scaler.update()
        found.append((mean_over_ranks(loss), scaler.get_scale()))
    return found, {name: value.detach().clone() for name, value in model.state_dict().items()}


def autocast_alone(overflow_at):
    model = make("gpt")
    opt = zoo.make_optimizer("sgd", model.parameters())
    losses = []
    for step in range(5):
        opt.zero_grad()
        parts = []
        for x, y in zip(*(t.chunk(2) for t in batch("gpt", step))):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                parts.append(zoo.loss_of("gpt", model(x), y))
            (parts[-1] / 2).backward()
        if step != overflow_at:
            opt.step()
        losses.append((sum(parts) / 2).item())
    return losses, dict(model.state_dict())


@pytest.mark.parametrize("config", [PP2, {**DDP, "shard_optimizer_state": True}], ids=["pp2", "shards2"])
def test_the_scaler_of_autocast_skips_on_all_ranks(worlds, config):
    losses, weights = autocast_alone(overflow_at=1)
    for found, own in worlds(2).run(scaled, config, 1):
        assert [scale for _, scale in found] == [2.0**8, 2.0**7, 2.0**7, 2.0**7, 2.0**8]
        assert [loss for loss, _ in found] == pytest.approx(losses, rel=1e-3)
        assert zoo.difference(own, weights) < 1e-2


def half_parts(rank):
    smp = fresh({**TP2, "fp16_params": True})
    model = smp.DistributedModel(make("gpt", smp))
    found = {name: p.dtype for name, p in model.module.named_parameters()}

    @smp.step
    def train_step(model, x, y):
        with torch.autocast("cpu", dtype=torch.float16):
            loss = zoo.loss_of("gpt", model(x), y)
        model.backward(loss)
        return loss

    loss = mean_over_ranks(train_step(model, *(own_slice(t, smp) for t in batch("gpt", 0))).reduce_mean())
    return found, loss, all(p.grad.isfinite().all() for p in model.local_parameters())


def test_fp16_params_makes_distributed_modules_half(worlds):
    expected = zoo.loss_of("gpt", make("gpt")(batch("gpt", 0)[0]), batch("gpt", 0)[1]).item()
    for dtypes, loss, finite in worlds(2).run(half_parts):
        assert dtypes["blocks.0.fc1.weight"] == torch.float16 and dtypes["blocks.0.ln1.weight"] == torch.float32
        assert loss == pytest.approx(expected, rel=5e-3) and finite


def test_the_loss_scale_forgives_and_grows():
    from trainyard_parallel.precision import LossScale

    scale = LossScale(dynamic=True, options={"init_scale": 16.0, "scale_window": 2, "delayed_shift": 2})
    seen = []
    for overflow in (True, True, False, False, True, True, True):
        scale.update(overflow)
        seen.append(scale.scale)
    # One overflow is forgiven, and another after the scale has grown.
    assert seen == [16, 8, 8, 16, 16, 8, 4]
    assert LossScale(static=128.0).scale == 128.0
    for _ in range(5):
        scale.update(True)
    assert scale.scale == 1
    with pytest.raises(ValueError, match="init_scal"):
        LossScale(dynamic=True, options={"init_scal": 2})
