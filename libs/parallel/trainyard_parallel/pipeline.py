"""Pipeline parallelism: a model's stages under the public schedules of torch.distributed.pipelining.

A schedule splits tensors into micro-batches itself and computes the loss by a function of its own. Here each
micro-batch is represented by its number: `torch.arange(n)` is split into n numbers, the first stage looks the real
arguments up, and the last stage resumes the user's step function with the model's result to learn the loss.

Schedules: `simple` is ScheduleGPipe; `interleaved` is Schedule1F1B (GPipe where there are fewer micro-batches than
stages, which is then the same order). `active_microbatches` below what a schedule keeps in flight cuts the step into
waves of that many.
"""

import contextlib

import torch
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from trainyard_parallel import chain
from trainyard_parallel.distant import Follower
from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.private import tree_flatten, tree_unflatten
from trainyard_parallel.results import Exchange
from trainyard_parallel.state import state
from trainyard_parallel.suspension import Suspension


class StageModule(nn.Module):
    """What PipelineStage calls: one pass, or on the last stage one pass and the user's loss."""

    def __init__(self, pipeline, plan):
        super().__init__()
        # Not a submodule: the parameters stay where the user's model has them.
        self.__dict__["pipeline"], self.plan = pipeline, plan
        planned = plan.result if pipeline.stage == pipeline.stages - 1 else plan.crossing[pipeline.stage]
        self.dtypes = [leaf.meta.dtype if isinstance(leaf, chain.Handle) else None for leaf in tree_flatten(planned)[0]]

    def forward(self, *received, index):
        pipeline = self.pipeline
        pipeline.use_idle_time(int(index))
        suspension = pipeline.suspensions[pipeline.first + int(index)]
        (args, kwargs), autocast = pipeline.calls.pop(pipeline.first + int(index))
        state.model.begin_task()
        autocast = torch.autocast(*autocast) if autocast else contextlib.nullcontext()
        pipeline.current = chain.Pass(self.plan, pipeline.stage, received)
        try:
            with autocast:
                result = pipeline.current.execute(pipeline.model, args, kwargs)
        finally:
            pipeline.current = None
        result = widened(result, self.dtypes)
        if pipeline.stage < pipeline.stages - 1:
            return result
        pipeline.results[pipeline.first + int(index)] = detached(result)
        suspension.resume(result)
        kind, value = suspension.state
        if kind == "call":
            raise SMPRuntimeError("the step function called the model twice; with pipeline parallelism call it once a step")
        loss = pipeline.scalar(*value) if kind == "backward" else torch.zeros(())
        return loss.reshape(1)


def widened(structure, dtypes):
    """The same with tensors in the dtypes of a plan: it knows nothing of autocast, under which they may be narrower."""
    leaves, spec = tree_flatten(structure)
    if all(dtype is None or leaf.dtype == dtype for leaf, dtype in zip(leaves, dtypes)):
        return structure
    return tree_unflatten([leaf if dtype is None else leaf.to(dtype) for leaf, dtype in zip(leaves, dtypes)], spec)


def detached(structure):
    return chain.map_leaves(lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, structure)


class Pipeline:
    """All stages of one model, seen from this rank. Every rank of the pipeline group calls `run` with equal arguments."""

    def __init__(self, model, stage_of, names, stage, stages, group, device, cfg):
        self.model, self.stage_of, self.names = model, stage_of, names
        self.stage, self.stages, self.group, self.device, self.cfg = stage, stages, group, device, cfg
        self.plans, self.schedules = {}, {}
        self.follower = Follower(device)
        # The pass that calls of units belong to; None while units run for themselves, as in a repeated forward.
        self.current = None

    def plan_for(self, args, kwargs):
        key = (self.model.training, torch.is_grad_enabled(), signature((args, kwargs)))
        if key not in self.plans:
            self.plans[key] = chain.make_plan(
                self.model, self.stage_of, self.names, self.stages, args, kwargs, self.device
            )
        return key, self.plans[key]

    def schedule_for(self, key, plan, count, loss_dtype):
        entry = (key, count, loss_dtype)
        if entry in self.schedules:
            return self.schedules[entry]

        def example(handle):
            return torch.empty(handle.meta.shape, dtype=handle.meta.dtype, device=self.device).requires_grad_(
                handle.meta.requires_grad
            )

        last = self.stage == self.stages - 1
        inputs = tuple(map(example, plan.crossing[self.stage - 1])) if self.stage else (torch.zeros(1),)
        outputs = (torch.zeros(1, dtype=loss_dtype),) if last else tuple(map(example, plan.crossing[self.stage]))
        stage = PipelineStage(
            StageModule(self, plan), self.stage, self.stages, self.device, input_args=inputs, output_args=outputs, group=self.group
        )
        kind = Schedule1F1B if self.cfg.pipeline == "interleaved" and count >= self.stages else ScheduleGPipe
        # The loss carries all scaling, see `scalar`.
        self.schedules[entry] = kind(stage, count, loss_fn=lambda output, target: output, scale_grads=False)
        return self.schedules[entry]

    def run(self, owner, functions, scale):
        """Runs one step function per micro-batch; returns (their results by micro-batch, whether they went backward).

        `owner` is the user's function, which is tried once per shape; `scale` multiplies every loss before its backward.
        """
        self.scale = scale
        self.suspensions, self.results = [], [None] * len(functions)
        try:
            for fn in functions:
                self.suspensions.append(Suspension(fn))
                if self.suspensions[-1].state[0] != "call":
                    raise SMPRuntimeError("the step function did not call the model; call it, or remove @smp.step")
            key, plan = self.plan_for(*self.suspensions[0].state[1])
            for suspension in self.suspensions[1:]:
                if self.plan_for(*suspension.state[1])[1] is not plan:
                    raise SMPRuntimeError("micro-batches of one step have different shapes; give inputs of equal size")
            self.calls = {i: (suspension.state[1], suspension.autocast) for i, suspension in enumerate(self.suspensions)}
            has_backward, loss_dtype = self.probe(owner, functions[0], plan)
            self.exchange = Exchange(self, plan, owner)
            # Once a step: to replace every unit's forward for every pass costs a percent of a small one.
            with chain.instrument(list(plan.stage_of), self.call):
                for self.first in range(0, len(functions), self.wave(len(functions))):
                    count = min(self.wave(len(functions)), len(functions) - self.first)
                    schedule = self.schedule_for(key, plan, count, loss_dtype)
                    self.ahead = count if has_backward and isinstance(schedule, Schedule1F1B) else 0
                    self.run_wave(schedule, count, has_backward)
            return self.exchange.finish_all(), has_backward
        finally:
            self.exchange = None
            for suspension in self.suspensions:
                suspension.abandon()

    def call(self, unit, forward, args, kwargs):
        return forward(*args, **kwargs) if self.current is None else self.current(unit, forward, args, kwargs)

    def use_idle_time(self, index):
        """Before its forward of micro-batch `index`: the last one of the warm-up is waited for by no stage before the next
        stage's first backward, so here the step functions can run on, which otherwise do so after the last backward.
        """
        if self.ahead and index == self.stages - self.stage - 1 and self.stage < self.stages - 1:
            self.exchange.run_ahead(range(self.first, self.first + self.ahead))

    def wave(self, count):
        in_flight = min(count, self.stages) if self.cfg.pipeline == "interleaved" else count
        return count if self.cfg.active_microbatches >= in_flight else self.cfg.active_microbatches

    def run_wave(self, schedule, count, has_backward):
        index = torch.arange(count)
        args = (torch.zeros(count),) if self.stage == 0 else ()
        target = index if self.stage == self.stages - 1 else None
        if has_backward:
            schedule.step(*args, index=index, target=target)
        else:
            with torch.no_grad():
                schedule.eval(*args, index=index, target=target)

    def probe(self, owner, fn, plan):
        """(whether the step calls backward, dtype of its loss), from a dry run of user code on zeros; cached."""
        if owner not in plan.probed:
            state.is_tracing = True
            with chain.untouched(self.model):
                trial = Suspension(fn)
                try:
                    trial.resume(self.example_result(plan))
                    kind, value = trial.state
                    loss = self.scalar(*value) if kind == "backward" else torch.zeros(())
                    plan.probed[owner] = (kind == "backward", loss.dtype)
                finally:
                    trial.abandon()
                    state.is_tracing = False
        return plan.probed[owner]

    def example_result(self, plan):
        leaves, spec = tree_flatten(plan.result)
        return tree_unflatten(
            [
                torch.zeros(leaf.meta.shape, dtype=leaf.meta.dtype, device=self.device).requires_grad_(leaf.meta.requires_grad)
                if isinstance(leaf, chain.Handle)
                else leaf
                for leaf in leaves
            ],
            spec,
        )

    def scalar(self, tensors, grads):
        """One loss whose backward is `torch.autograd.backward(tensors, grads)` times the scale."""
        if isinstance(tensors, torch.Tensor) and tensors.dim() == 0 and grads is None:
            return tensors * self.scale
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        grads = [None] * len(tensors) if grads is None else [grads] if isinstance(grads, torch.Tensor) else list(grads)
        return self.scale * sum((t if g is None else t * g).sum() for t, g in zip(tensors, grads))

    def finish(self, index, result):
        """What the step function returns; `result(index)` is the model's, for a function that has not got it yet."""
        suspension = self.suspensions[index]
        if suspension.state[0] in ("call", "values"):
            # Its backward has happened, on all stages.
            suspension.passes_backward = True
            suspension.resume(result(index) if suspension.state[0] == "call" else None)
        if suspension.state[0] == "backward":
            suspension.resume()
        if suspension.state[0] != "done":
            raise SMPRuntimeError("the step function called the model or model.backward twice; call each once a step")
        return suspension.state[1]


def signature(structure):
    """What a plan depends on: shapes and types of tensors, and other values as they are."""
    kind = type(structure)
    if isinstance(structure, torch.Tensor):
        return tuple(structure.shape), structure.dtype
    if kind in (tuple, list):
        return kind, tuple([signature(item) for item in structure])
    if kind is dict:
        return kind, tuple([(key, signature(item)) for key, item in structure.items()])
    if kind in chain.SIMPLE:
        return kind, structure
    leaves, spec = tree_flatten(structure)
    return str(spec), tuple(repr(leaf) if leaf is structure else signature(leaf) for leaf in leaves)
