"""What a step function may do with results that only the last stage has, and what of them travels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from trainyard_parallel.errors import SMPRuntimeError
from training import fresh

STEPS = 4
PP = {"pipeline_parallel_degree": 2, "microbatches": 3}
LOGITS = zoo.BATCH * zoo.SEQUENCE * zoo.VOCABULARY * 8


class Sent(TorchDispatchMode):
    """Bytes of all tensors that go into messages and collectives of this rank."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d" and not func._opname.startswith("recv"):
            self.bytes += sum(t.numel() * t.element_size() for t in self.tensors(args[0]))
        return func(*args, **(kwargs or {}))

    def tensors(self, value):
        if isinstance(value, torch.Tensor):
            return [value]
        return [t for item in value for t in self.tensors(item)] if isinstance(value, (list, tuple)) else []


def loss_of(model, x, y):
    return zoo.token_loss(model(x)["logits"], y)


# Step functions: of (model, x, y, backward, step, rank, notes), as a script would write them. `step` is None in a trial.


def plain(model, x, y, backward, step, rank, notes):
    loss = loss_of(model, x, y)
    backward(loss)
    return loss


def several(model, x, y, backward, step, rank, notes):
    logits = model(x)["logits"]
    first, second = zoo.token_loss(logits, y), logits.logsumexp(-1).square().mean()
    total = first + 0.1 * second
    backward(total)
    right = (logits.argmax(-1) == y).sum()
    return {"loss": total, "parts": (first, second.detach()), "right": right, "shape": tuple(logits.shape)}


def with_logits(model, x, y, backward, step, rank, notes):
    logits = model(x)["logits"]
    loss = zoo.token_loss(logits, y)
    backward(loss)
    return loss, logits


def branches(model, x, y, backward, step, rank, notes):
    loss = loss_of(model, x, y)
    if loss > 3.46:
        loss = loss * 2
    backward(loss)
    return loss


def reads_late(model, x, y, backward, step, rank, notes):
    loss = loss_of(model, x, y)
    backward(loss)
    if step == 2:
        notes.append(float(loss.detach()))
        notes.append(loss.detach().numpy().tolist())
        notes.append(f"{loss:.3f}")
    return loss


def first_rank_reads(model, x, y, backward, step, rank, notes):
    """As scripts log: on one rank only, and not in every step."""
    logits = model(x)["logits"]
    loss = zoo.token_loss(logits, y)
    backward(loss)
    if rank == 0 and step and step % 2:
        notes.append((logits.argmax(-1) == y).double().mean().item())
    return loss


def keeps(model, x, y, backward, step, rank, notes):
    loss = loss_of(model, x, y)
    backward(loss)
    if step is not None and step > 0:
        notes.append(loss.detach() / 2)
    return loss


def changes_in_place(model, x, y, backward, step, rank, notes):
    logits = model(x)["logits"]
    logits = logits - logits.detach().mean()
    view = logits[..., :4]
    view *= 0.5
    loss = zoo.token_loss(logits, y)
    loss += 1
    loss /= 2
    backward(loss)
    if step == 2:
        notes.append(loss.item())
    return loss


def sums_here(model, x, y, backward, step, rank, notes):
    """A tensor that is here on every rank takes the loss."""
    loss = loss_of(model, x, y)
    total = torch.ones(())
    total += loss.detach()
    backward(loss)
    return loss, total


def returns_other(model, x, y, backward, step, rank, notes):
    """What is returned changes its form once."""
    logits = model(x)["logits"]
    loss = zoo.token_loss(logits, y)
    backward(loss)
    return (loss,) if step != 2 else (logits.mean((0, 2)), loss)


def first_rank_returns(model, x, y, backward, step, rank, notes):
    logits = model(x)["logits"]
    loss = zoo.token_loss(logits, y)
    backward(loss)
    return loss if rank != 0 or step != 3 else (loss * 1, logits.max())[0]


FUNCTIONS = {
    f.__name__: f
    for f in (
        *(plain, several, with_logits, branches, reads_late, first_rank_reads, keeps),
        *(changes_in_place, sums_here, returns_other, first_rank_returns),
    )
}


def flat(value):
    return [x for x in torch.utils._pytree.tree_leaves(value)]


def numbers(notes):
    return [note.item() if isinstance(note, torch.Tensor) else note for note in notes]


def distributed(rank, name, config):
    smp = fresh(config)
    model = smp.DistributedModel(zoo.make("gpt"))
    opt = smp.DistributedOptimizer(zoo.make_optimizer("adamw", model.parameters()))
    notes, now = [], [None]

    @smp.step
    def train_step(model, x, y):
        step = None if smp.is_tracing() else now[0]
        return FUNCTIONS[name](model, x, y, model.backward, step, rank, notes)

    returned, sent = [], []
    for step in range(STEPS):
        now[0] = step
        x, y = zoo.data("gpt", step)
        opt.zero_grad()
        counter = Sent()
        with counter:
            out = train_step(model, x, y)
        sent.append(counter.bytes)
        outputs = [leaf.outputs if hasattr(leaf, "outputs") else leaf for leaf in flat(out)]
        assert all(type(value) is torch.Tensor for leaf in outputs if isinstance(leaf, list) for value in leaf)
        returned.append(outputs)
        opt.step()
    return returned, numbers(notes), sent, {name: value.clone() for name, value in model.state_dict().items()}


def alone(name, count, rank=0):
    model = zoo.make("gpt")
    opt = zoo.make_optimizer("adamw", model.parameters())
    notes, returned = [], []
    for step in range(STEPS):
        x, y = zoo.data("gpt", step)
        opt.zero_grad()
        outs = [
            FUNCTIONS[name](model, xs, ys, lambda loss: (loss / count).backward(), step, rank, notes)
            for xs, ys in zip(x.chunk(count), y.chunk(count))
        ]
        opt.step()
        columns = list(zip(*map(flat, outs)))
        returned.append([[v.detach() for v in c] if isinstance(c[0], torch.Tensor) else c[0] for c in columns])
    return returned, numbers(notes), model.state_dict()


def same(found, expected):
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, torch.Tensor):
        return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-11, atol=1e-13)
    return found == (pytest.approx(expected, rel=1e-11) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("pipeline", ["interleaved", "simple"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_step_function_gives_what_one_process_gives(worlds, name, pipeline):
    results = worlds(2).run(distributed, name, {**PP, "pipeline": pipeline})
    for rank, (returned, notes, _, weights) in enumerate(results):
        expected, noted, reference = alone(name, 3, rank)
        assert same(returned, expected)
        # Notes of the trial of a step function are on zeros and come first.
        assert same(notes[len(notes) - len(noted) :], noted), (notes, noted)
        assert zoo.difference(weights, reference) < 1e-11


def test_on_three_stages_one_rank_may_look(worlds):
    results = worlds(3).run(distributed, "first_rank_reads", {"pipeline_parallel_degree": 3, "microbatches": 3})
    for rank, (returned, notes, _, _) in enumerate(results):
        expected, noted, _ = alone("first_rank_reads", 3, rank)
        assert same(returned, expected) and same(notes, noted)


def test_logits_do_not_travel_for_a_loss(worlds):
    width = zoo.BATCH * zoo.SEQUENCE * zoo.WIDTH * 8
    tied = zoo.VOCABULARY * zoo.WIDTH * 8
    for name in ("plain", "several"):
        for _, _, sent, _ in worlds(2).run(distributed, name, PP):
            # The blocks' output and the embedding's, or their gradients; the gradient of the tied weight; and little more.
            assert all(bytes <= 2 * width + tied + 1024 for bytes in sent[1:]), sent
            assert 2 * width + tied + 1024 < LOGITS + width < sent[0]
    for _, _, sent, _ in worlds(2).run(distributed, "with_logits", PP):
        assert all(bytes >= LOGITS for bytes in sent[1:])


def random_loss(rank):
    smp = fresh(PP)
    model = smp.DistributedModel(zoo.make("gpt"))

    @smp.step
    def train_step(x, y):
        numbers = torch.rand(2)
        loss = zoo.token_loss(F.dropout(model(x)["logits"], 0.5), y)
        model.backward(loss)
        return loss, numbers

    losses = []
    torch.manual_seed(5)
    for _ in range(3):
        loss, numbers = train_step(*zoo.data("gpt", 0))
        losses.append((loss.reduce_mean().item(), numbers.concat().tolist()))
    return losses, torch.get_rng_state().tolist()


def test_random_numbers_in_the_loss_are_the_same_on_every_rank(worlds):
    first, second = worlds(2).run(random_loss)
    assert first == second
    assert len({loss for loss, _ in first[0]}) == 3


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(zoo.VOCABULARY, 5), nn.BatchNorm1d(5)

    def forward(self, logits):
        return self.norm(self.linear(logits).flatten(0, 1))


def outside(rank):
    """Modules with weights and with state outside of the model."""
    smp = fresh(PP)
    model = smp.DistributedModel(zoo.make("gpt"))
    torch.manual_seed(2)
    head = Head()

    @smp.step
    def train_step(x, y):
        out = head(model(x)["logits"])
        loss = F.cross_entropy(out, y.flatten() % 5)
        model.backward(loss)
        return loss

    losses = [train_step(*zoo.data("gpt", step)).reduce_mean().item() for step in range(2)]
    return losses, head.norm.running_mean, head.linear.weight.grad


def test_modules_outside_the_model_see_values_where_they_keep_state(worlds):
    (losses, mean, here), (others, same_mean, there) = worlds(2).run(outside)
    assert losses == others and torch.equal(mean, same_mean) and mean.abs().sum() > 0
    # The backward happens on the last stage.
    assert here is None and there is not None


class WithLoss(zoo.GPT):
    def forward(self, ids, labels=None):
        from transformers.modeling_outputs import CausalLMOutput

        return CausalLMOutput(**super().forward(ids, labels))


def hugging_face(rank):
    smp = fresh(PP)
    zoo.make("gpt")
    torch.manual_seed(7)
    model = smp.DistributedModel(WithLoss())

    @smp.step
    def train_step(x, y):
        out = model(x, y)
        model.backward(out.loss)
        assert out["logits"].shape == (4, zoo.SEQUENCE, zoo.VOCABULARY)
        # A small result is on every rank, whatever is done with it.
        return out["loss"], out.loss.item()

    @smp.step
    def evaluate(x, y):
        return model(x, y)

    losses, sent = [], []
    for step in range(3):
        counter = Sent()
        with counter:
            losses.append(train_step(*zoo.data("gpt", step))[0].reduce_mean().item())
        sent.append(counter.bytes)
    with torch.no_grad():
        outs = [evaluate(*zoo.data("gpt", 0)) for _ in range(2)]
    kinds = {type(out).__name__ for out in outs}
    return losses, sent, kinds, [out.logits.concat() for out in outs]


def test_outputs_of_hugging_face(worlds):
    first, second = worlds(2).run(hugging_face)
    model = zoo.make("gpt")
    x, y = zoo.data("gpt", 0)
    for losses, sent, kinds, logits in (first, second):
        assert losses[0] == pytest.approx(model(x, y)["loss"].item(), rel=1e-12) and losses == first[0]
        assert all(bytes < sent[0] - LOGITS / 2 for bytes in sent[1:])
        assert kinds == {"CausalLMOutput"}
        for found in logits:
            assert torch.allclose(found, model(x)["logits"], rtol=1e-11, atol=1e-12)


def changed(rank):
    smp = fresh(PP)
    model = smp.DistributedModel(zoo.make("gpt"))
    losses, errors = [], []

    @smp.step
    def train_step(x, y):
        weight = torch.ones(())
        loss = zoo.token_loss(model(x)["logits"], y) + weight
        weight.add_(1)
        model.backward(loss)
        if len(losses) == 2 and rank == 0 and not errors:
            try:
                loss.item()
            except SMPRuntimeError as error:
                errors.append(str(error))
        return loss

    for _ in range(3):
        losses.append(train_step(*zoo.data("gpt", 0)).reduce_mean().item())
    return losses, errors


def test_a_tensor_changed_after_its_use_does_not_change_the_loss(worlds):
    (first, errors), (second, none) = worlds(2).run(changed)
    model = zoo.make("gpt")
    x, y = zoo.data("gpt", 0)
    assert first == second == [pytest.approx(zoo.token_loss(model(x)["logits"], y).item() + 1, rel=1e-12)] * 3
    assert "read it before the change" in errors[0] and not none


def autocast(rank):
    smp = fresh(PP)
    model = smp.DistributedModel(zoo.make("gpt").float())
    dtypes = []

    @smp.step
    def train_step(x, y):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)["logits"]
            half = logits @ torch.eye(zoo.VOCABULARY, dtype=torch.float32)
            dtypes.append(half.dtype)
            loss = zoo.token_loss(half, y)
        model.backward(loss)
        return loss, half.float().mean()

    found = [tuple(out.reduce_mean().item() for out in train_step(*zoo.data("gpt", 0))) for _ in range(3)]
    return found, set(dtypes)


def test_distant_tensors_know_autocast(worlds):
    first, second = worlds(2).run(autocast)
    assert first == second and first[1] == {torch.bfloat16}
    assert len(set(first[0])) == 1


def order_of_code(rank):
    smp = fresh({**PP, "pipeline": "interleaved"})
    model = smp.DistributedModel(zoo.make("gpt"))
    weight = next(p for n, p in model.get_module().named_parameters() if n.startswith("blocks.0." if rank == 0 else "blocks.3."))
    seen = []

    @smp.step
    def train_step(x, y):
        logits = model(x)["logits"]
        loss = zoo.token_loss(logits, y)
        seen.append(("before", 0 if weight.grad is None else weight.grad.abs().sum().item()))
        model.backward(loss)
        seen.append(("after", weight.grad is not None and weight.grad.abs().sum().item()))
        return loss

    for step in range(2):
        seen.clear()
        weight.grad = None
        train_step(*zoo.data("gpt", step))
    return seen


def test_code_up_to_the_backward_runs_in_the_idle_time_of_the_first_stage(worlds):
    """It costs the step nothing there; code after the backward still finds that it has happened."""
    first, last = worlds(2).run(order_of_code)
    assert [kind for kind, _ in first] == ["before"] * 3 + ["after"] * 3
    assert all(size == 0 for _, size in first[:3]) and all(size > 0 for _, size in first[3:])
    assert [kind for kind, _ in last].count("before") == 3
    assert all(size > 0 for kind, size in last if kind == "after")
