"""Saving and resuming: the continued run equals an uninterrupted one; a killed save harms nothing."""

import copy
import itertools
import os
import subprocess
import sys

import pytest
import torch

import zoo
from trainyard_parallel.errors import SMPRuntimeError
from training import fresh, own_slice

BOUND = 1e-12
DP, PP, TP = {"ddp": True}, {"partitions": 2}, {"tensor_parallel_degree": 2, "ddp": True}
CONFIGS = {
    "one": (1, {}),
    "dp2": (2, DP),
    "pp2": (2, PP),
    "tp2": (2, TP),
    "pp2tp2": (4, {**PP, **TP}),
    "state2": (2, {**DP, "shard_optimizer_state": True}),
    "tp2state2": (4, {**TP, "shard_optimizer_state": True, "microbatches": 1}),
    "sdp2": (2, {**DP, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100, "sdp_gradient_clipping": 1e9}),
    "tp2sdp2": (4, {**TP, "prescaled_batch": True, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100, "sdp_gradient_clipping": 1e9}),
}


def start(config):
    smp = fresh({"microbatches": 2, **config})
    if smp.tp_size() > 1:
        with smp.tensor_parallelism():
            model = zoo.make("gpt")
    else:
        model = zoo.make("gpt")
    model = smp.DistributedModel(model)
    opt = smp.DistributedOptimizer(zoo.make_optimizer("adamw", model.parameters()))

    @smp.step
    def train_step(model, x, y):
        loss = zoo.loss_of("gpt", model(x), y)
        model.backward(loss)
        return loss

    def steps(numbers):
        for step in numbers:
            x, y = (own_slice(t, smp) for t in zoo.data("gpt", step))
            opt.zero_grad()
            train_step(model, x, y)
            opt.step()

    return smp, model, opt, steps


def save_at_two(rank, config, path, partial):
    smp, model, opt, steps = start(config)
    steps([0, 1])
    smp.save_checkpoint(
        path, "step2", partial, model, opt, user_content={"step": 2}, num_kept_partial_checkpoints=2 if partial else None
    )
    steps([2, 3])
    return model.state_dict()


def resume_at_two(rank, config, path, optimizer=True):
    smp, model, opt, steps = start(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    content = smp.resume_from_checkpoint(path, partial=True, load_optimizer=optimizer)
    steps([2, 3])
    return content, model.state_dict()


@pytest.mark.parametrize("name", ["one", "dp2", "pp2", "tp2", "pp2tp2", "state2", "sdp2", "tp2state2"])
def test_a_partial_checkpoint_continues_as_if_uninterrupted(worlds, tmp_path, name):
    ranks, config = CONFIGS[name]
    expected = worlds(ranks).run(save_at_two, config, str(tmp_path), True)
    for (content, weights), reference in zip(worlds(ranks).run(resume_at_two, config, str(tmp_path)), expected):
        assert content == {"step": 2}
        assert zoo.difference(weights, reference) <= BOUND


def load_full(rank, config, path):
    smp, model, _, steps = start(config)
    content = smp.resume_from_checkpoint(path, "full", partial=False, load_optimizer=False)
    if not model.partitioned:
        # Values are loaded by the partition, which the first step makes.
        steps_without_update(smp, model)
    return content, model.state_dict()


def steps_without_update(smp, model):
    @smp.step
    def evaluate(model, x):
        return model(x)

    with torch.no_grad():
        evaluate(model, own_slice(zoo.data("gpt", 0)[0], smp))


def save_full(rank, config, path):
    smp, model, opt, steps = start(config)
    steps([0])
    smp.save_checkpoint(path, "full", False, model, opt, user_content=[1])
    return model.state_dict()


PAIRS = [*itertools.product(["one", "pp2", "tp2", "pp2tp2", "sdp2"], ["one", "pp2", "tp2", "sdp2"])]


@pytest.mark.parametrize("saved, loaded", [*PAIRS, ("tp2sdp2", "one"), ("one", "tp2sdp2")])
def test_a_full_checkpoint_loads_on_other_degrees(worlds, tmp_path, saved, loaded):
    expected = worlds(CONFIGS[saved][0]).run(save_full, CONFIGS[saved][1], str(tmp_path))[0]
    assert set(torch.load(tmp_path / "full")) == set(expected)
    for content, weights in worlds(CONFIGS[loaded][0]).run(load_full, CONFIGS[loaded][1], str(tmp_path)):
        assert content == [1]
        assert zoo.difference(weights, expected) == 0


# Each kind is written and read at least twice; every pair of them passes too.
PAIRS = [
    ("one", "tp2state2"), ("one", "sdp2"), ("pp2", "sdp2"), ("pp2", "state2"), ("tp2", "pp2"), ("tp2", "one"),
    ("pp2tp2", "state2"), ("state2", "pp2"), ("state2", "tp2"), ("sdp2", "tp2state2"), ("sdp2", "pp2"), ("tp2state2", "tp2"),
]  # fmt: skip


@pytest.mark.parametrize("saved, loaded", PAIRS)
def test_a_partial_checkpoint_continues_on_other_degrees(worlds, tmp_path, saved, loaded):
    expected = worlds(CONFIGS[saved][0]).run(save_at_two, CONFIGS[saved][1], str(tmp_path), True)[0]
    for content, weights in worlds(CONFIGS[loaded][0]).run(resume_at_two, CONFIGS[loaded][1], str(tmp_path)):
        assert content == {"step": 2}
        assert zoo.difference(weights, expected) <= BOUND


def optimizer_by_name(rank, source, target):
    smp, model, opt, steps = start(source)
    steps([0, 1])
    # As in torch, a state dict refers to the live tensors.
    weights, saved = copy.deepcopy((model.state_dict(), opt.state_dict()))
    steps([2, 3])
    expected = model.state_dict()
    smp, model, opt, steps = start(target)
    model.load_state_dict(weights)
    opt.load_state_dict(saved)
    steps([2, 3])
    return zoo.difference(model.state_dict(), expected)


def test_a_full_optimizer_state_moves_between_pipeline_degrees(worlds):
    assert max(worlds(2).run(optimizer_by_name, CONFIGS["pp2"][1], DP)) <= BOUND
    assert max(worlds(2).run(optimizer_by_name, DP, CONFIGS["pp2"][1])) <= BOUND


def names_and_objects(rank, path):
    smp = fresh({"partitions": 2, "tensor_parallel_degree": 2, "ddp": True})
    file = os.path.join(path, "object")
    smp.save({"rank": rank}, file, partial=True)
    smp.barrier()
    return smp.load(file, partial=True)["rank"], sorted(os.listdir(path))


def test_partial_objects_carry_their_ranks_in_the_name(worlds, tmp_path):
    for rank, (found, names) in enumerate(worlds(4).run(names_and_objects, str(tmp_path))):
        assert found == rank and names == ["object_0_0", "object_0_1", "object_1_0", "object_1_1"]


def pruned(rank, path):
    smp, model, opt, steps = start({})
    steps([0])
    for tag in ("a", "b", "c"):
        smp.save_checkpoint(path, tag, True, model, opt, num_kept_partial_checkpoints=2)
    return sorted(os.listdir(path)), open(os.path.join(path, "newest")).read()


def test_old_partial_checkpoints_are_pruned(worlds, tmp_path):
    assert worlds(1).run(pruned, str(tmp_path))[0] == (["b_partial", "c_partial", "newest"], "c_partial")


KILLED = """
import os, pickle, sys, torch
from trainyard_parallel import checkpoint

class Deadly:
    def __reduce__(self):
        os.kill(os.getpid(), 9)

checkpoint.write({"big": torch.zeros(1000), "then": Deadly()}, sys.argv[1])
"""


def test_a_killed_save_leaves_the_last_file_whole(tmp_path):
    from trainyard_parallel import checkpoint

    path = str(tmp_path / "model")
    checkpoint.write({"good": torch.ones(3)}, path)
    done = subprocess.run([sys.executable, "-c", KILLED, path], timeout=120)
    assert done.returncode == -9
    assert torch.load(path)["good"].tolist() == [1, 1, 1]
