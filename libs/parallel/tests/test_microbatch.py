"""Slices of arguments and StepOutput, without ranks."""

from collections import OrderedDict, namedtuple

import pytest
import torch

from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.microbatch import StepOutput, combine, split

Pair = namedtuple("Pair", "a b")


class Sliced:
    def smp_slice(self, num_mb, mb, axis):
        return ("part", num_mb, mb, axis)


def test_tensors_are_cut_inside_containers_and_other_values_kept():
    x = torch.arange(12).reshape(6, 2)
    value = {"x": x, "list": [x, 3], "tuple": (x, None), "pair": Pair(x, "s"), "scalar": torch.tensor(1)}
    part = split(value, 3, 1, 0, "batch")
    assert torch.equal(part["x"], x[2:4]) and torch.equal(part["list"][0], x[2:4]) and part["list"][1] == 3
    assert part["tuple"][1] is None and isinstance(part["pair"], Pair) and part["pair"].b == "s"
    assert part["scalar"].item() == 1


def test_axis_and_own_slicing():
    x = torch.arange(12).reshape(2, 6)
    assert torch.equal(split(x, 3, 2, 1, "x"), x[:, 4:])
    assert split(Sliced(), 3, 2, 1, "x") == ("part", 3, 2, 1)


def test_an_indivisible_batch_names_argument_size_and_count():
    with pytest.raises(SMPRuntimeError, match=r"argument data\['x'\] has size 5 along axis 0 .* microbatches 2 must divide"):
        split({"x": torch.zeros(5, 1)}, 2, 0, 0, "data")


def test_results_become_step_outputs_and_keep_their_types():
    results = [OrderedDict(loss=torch.tensor(float(i)), rows=torch.full((2, 1), i), n=3) for i in range(3)]
    out = combine(results, detach=True)
    assert isinstance(out, OrderedDict) and out["n"] == 3
    assert out["loss"].reduce_mean().item() == 1.0 and out["loss"].reduce_sum().item() == 3.0
    assert out["rows"].concat().flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert out["rows"].stack().shape == (3, 2, 1)
    assert out["loss"].concat().shape == (3,)


def test_step_output_forwards_tensor_methods():
    out = StepOutput([torch.ones(2, requires_grad=True) * i for i in range(2)])
    chained = out.detach().to(torch.float64)
    assert chained.concat().tolist() == [0, 0, 1, 1] and not chained.outputs[0].requires_grad
    assert out.shape == [torch.Size([2])] * 2
