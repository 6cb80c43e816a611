"""FSDP2 and HSDP beyond the plain loop, alone and with tensor parallelism, equal to one process; checkpoints of them."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from test_frameworks import STEPS, batch

pytestmark = pytest.mark.parametrize("topology", ["2x2"])


def make_model():
    torch.manual_seed(2)
    # Sizes that do not divide by the number of ranks.
    return nn.Sequential(nn.Linear(64, 98), nn.Tanh(), nn.Linear(98, 61), nn.Tanh(), nn.Linear(61, 8))


def one_process(size, passes=1, row_groups=None):
    """Losses by step and weights of the same training on the rows of all ranks."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for step in range(STEPS):
        total = 0.0
        for part in range(passes):
            for group in range(row_groups or size):
                x, y = batch(group, step * passes + part)
                loss = nn.functional.mse_loss(model(x), y) / (row_groups or size) / passes
                loss.backward()
                total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses, torch.cat([p.detach().flatten() for p in model.parameters()])


def shard(model, mesh, **options):
    import trainyard_collective

    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    trainyard_collective.share_fsdp_memory(model)
    return model


def train(model, rows, passes=1, on_pass=None):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(STEPS):
        for part in range(passes):
            if on_pass:
                on_pass(part == passes - 1)
            x, y = batch(rows, step * passes + part)
            (nn.functional.mse_loss(model(x), y) / passes).backward()
        optimizer.step()
        optimizer.zero_grad()


def whole(model):
    return torch.cat([p.full_tensor().detach().flatten() for p in model.parameters()])


def check_variant(rank, size, variant):
    mesh = init_device_mesh("cpu", (size,))
    options = {"reshard": {"reshard_after_forward": False}, "part": {"reshard_after_forward": 2}}.get(variant, {})
    passes = 1
    on_pass = None
    if variant.startswith("hsdp"):
        ranks = torch.arange(size).view(size // 2, 2)
        # Shards inside a host and replicas across hosts, or the other way round.
        mesh = dist.DeviceMesh(
            "cpu", ranks if variant != "hsdp_across" else ranks.t().contiguous(), mesh_dim_names=("replicate", "shard")
        )
    model = shard(make_model(), mesh, **options)
    if variant == "prefetch":
        layers = [layer for layer in model if isinstance(layer, nn.Linear)]
        for this, following in zip(layers, layers[1:]):
            this.set_modules_to_forward_prefetch([following])
            following.set_modules_to_backward_prefetch([this])
    if variant == "accumulate":
        passes, on_pass = 3, model.set_requires_gradient_sync
    if variant == "hsdp_accumulate":
        passes, on_pass = 3, model.set_requires_all_reduce
    train(model, rank, passes, on_pass)
    _, expected = one_process(size, passes)
    assert torch.allclose(whole(model), expected, atol=1e-5)


@pytest.mark.parametrize(
    "variant", ["reshard", "part", "prefetch", "accumulate", "hsdp", "hsdp_across", "hsdp_accumulate"]
)
def test_sharded_training_equals_one_process(world, variant):
    world.run(check_variant, variant)


def check_two_dimensions(rank, size):
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("data", "tensor"))
    model = parallelize_module(make_model(), mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    shard(model, mesh["data"])
    groups = size // 2
    train(model, mesh["data"].get_local_rank())
    _, expected = one_process(size, row_groups=groups)
    assert torch.allclose(whole(model), expected, atol=1e-5)


def test_sharding_with_tensor_parallelism_equals_one_process(world):
    world.run(check_two_dimensions)


def check_resharding(rank, size, folder, asynchronous):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def fresh(mesh):
        model = shard(make_model(), mesh)
        return model, torch.optim.AdamW(model.parameters(), lr=0.01)

    def train_once(model, optimizer, step):
        x, y = batch(rank, step)
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = fresh(init_device_mesh("cpu", (size,)))
    train_once(model, optimizer, 0)
    parts = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer)))
    if asynchronous:
        dcp.async_save(parts, checkpoint_id=folder).result()
    else:
        dcp.save(parts, checkpoint_id=folder)
    train_once(model, optimizer, 1)
    expected = whole(model)

    # Another layout than the one that was saved.
    other, optimizer = fresh(init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("replicate", "shard")))
    train_once(other, optimizer, 5)
    parts = dict(zip(("model", "optimizer"), get_state_dict(other, optimizer)))
    dcp.load(parts, checkpoint_id=folder)
    set_state_dict(other, optimizer, model_state_dict=parts["model"], optim_state_dict=parts["optimizer"])
    train_once(other, optimizer, 1)
    assert torch.allclose(whole(other), expected, atol=1e-6)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["save", "async_save"])
def test_a_checkpoint_goes_on_in_another_sharding(world, tmp_path, asynchronous):
    world.run(check_resharding, str(tmp_path / "checkpoint"), asynchronous)


def check_whole_state_dict(rank, size):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict

    source = make_model()
    expected = copy.deepcopy(source.state_dict())
    with torch.no_grad():
        other = make_model()
        for parameter in other.parameters():
            parameter.zero_()
    model = shard(other, init_device_mesh("cpu", (size,)))
    # Only rank 0 has the state; the others receive it.
    set_model_state_dict(
        model,
        source.state_dict() if rank == 0 else {},
        options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True),
    )
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=False))
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_whole_state_dicts_are_sent_and_gathered(world):
    world.run(check_whole_state_dict)
