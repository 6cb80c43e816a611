"""Slices of a step's arguments, and the results of all micro-batches put together again."""

import torch

from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.private import tree_flatten, tree_unflatten


class StepOutput:
    """The values that one returned tensor had in every micro-batch.

    `outputs` lists them by micro-batch. Other attributes of a tensor are forwarded to each of them and give another
    StepOutput (or a list, where the results are no tensors): `out.detach().cpu().concat()`.
    """

    def __init__(self, outputs):
        self.outputs = list(outputs)

    def reduce_sum(self):
        return sum(self.outputs[1:], self.outputs[0])

    def reduce_mean(self):
        return self.reduce_sum() / len(self.outputs)

    def concat(self):
        """All micro-batches along axis 0, in order; scalars are stacked."""
        return torch.cat([out.unsqueeze(0) if out.dim() == 0 else out for out in self.outputs])

    def stack(self):
        return torch.stack(self.outputs)

    def __getattr__(self, name):
        if name.startswith("__") or name == "outputs":
            raise AttributeError(name)
        values = [getattr(out, name) for out in self.outputs]
        if all(callable(value) for value in values):
            return lambda *args, **kwargs: gather([value(*args, **kwargs) for value in values])
        return gather(values)

    def __repr__(self):
        return f"StepOutput({self.outputs})"


def gather(values):
    return StepOutput(values) if all(isinstance(value, torch.Tensor) for value in values) else values


def split(value, count, index, axis, name):
    """The part of an argument that micro-batch `index` of `count` gets; containers are followed, other values kept."""
    if hasattr(value, "smp_slice"):
        return value.smp_slice(count, index, axis)
    if isinstance(value, torch.Tensor):
        if value.dim() == 0:
            return value
        if axis >= value.dim() or value.shape[axis] % count:
            size = value.shape[axis] if axis < value.dim() else 0
            raise SMPRuntimeError(
                f"argument {name} has size {size} along axis {axis} (shape {tuple(value.shape)}), which microbatches "
                f"{count} must divide; change the batch, or name the argument in non_split_inputs or input_split_axes"
            )
        part = value.shape[axis] // count
        return value.narrow(axis, part * index, part)
    if isinstance(value, dict) or hasattr(value, "items") and hasattr(value, "keys"):
        parts = {key: split(item, count, index, axis, f"{name}[{key!r}]") for key, item in value.items()}
        return parts if type(value) is dict else type(value)(parts)
    if isinstance(value, (list, tuple, set)):
        parts = [split(item, count, index, axis, f"{name}[{i}]") for i, item in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def combine(results, detach):
    """One structure in which every tensor is a StepOutput over the micro-batches."""
    flat = [tree_flatten(result) for result in results]
    leaves = []
    for values in zip(*(leaves for leaves, _ in flat)):
        if isinstance(values[0], torch.Tensor):
            leaves.append(StepOutput(value.detach() if detach else value for value in values))
        else:
            leaves.append(values[0])
    return tree_unflatten(leaves, flat[0][1])
