"""`@smp.step`: a training step that runs once per micro-batch."""

import functools
import inspect

from trainyard_parallel import microbatch
from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.state import state


def step(fn=None, *, non_split_inputs=None, input_split_axes=None, detach_outputs=True):
    """Makes the function run once per micro-batch on equal slices of its tensor arguments.

    Tensors (also inside lists, tuples, dicts and sets) are cut along axis 0, or the axis that `input_split_axes` names
    for an argument; arguments in `non_split_inputs` go whole to every micro-batch, and so do values that are no tensors.
    Every tensor in the result becomes a StepOutput. Inside, call the model and `model.backward(loss)`, once each; every
    rank must call the step, with equal arguments inside a model-parallel group. Works with and without parentheses.

    Raises SMPRuntimeError if `microbatches` does not divide an argument's size.
    """
    if fn is None:
        return functools.partial(
            step, non_split_inputs=non_split_inputs, input_split_axes=input_split_axes, detach_outputs=detach_outputs
        )
    return StepFunction(fn, set(non_split_inputs or ()), dict(input_split_axes or {}), detach_outputs)


class StepFunction:
    def __init__(self, fn, whole, axes, detach):
        functools.update_wrapper(self, fn)
        self.fn, self.whole, self.axes, self.detach = fn, whole, axes, detach
        self.names = inspect.signature(fn)

    def __get__(self, instance, owner=None):
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args, **kwargs):
        state.require_init()
        count = state.cfg.microbatches
        functions = [functools.partial(self._one, args, kwargs, count, index) for index in range(count)]
        model = state.model
        if model is None:
            raise SMPRuntimeError("a step was called before a model was wrapped; make smp.DistributedModel(model) first")
        with model.in_step(count):
            results = model.run_step(self, functions)
        return microbatch.combine(results, self.detach)

    def _one(self, args, kwargs, count, index):
        bound = self.names.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name in self.whole or value is state.model:
                continue
            kind = self.names.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {
                    key: item
                    if key in self.whole
                    else microbatch.split(item, count, index, self.axes.get(key, 0), key)
                    for key, item in value.items()
                }
            else:
                bound.arguments[name] = microbatch.split(value, count, index, self.axes.get(name, 0), name)
        return self.fn(*bound.args, **bound.kwargs)
