"""Half precision: a model in FP16 or BF16, its optimizer on FP32 masters.

With `fp16` or `bf16` parameters, activations and gradients are in half precision. Floating-point arguments of the model
are cast on entry and results to FP32 on exit, so losses are computed in FP32. The optimizer updates FP32 *masters*; the
model's parameters are their rounding. FP16 gradients would vanish below 6e-8, so losses are multiplied by a *loss scale*
before the backward and gradients divided by it on their way to the masters.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-extended-features-pytorch-fp16.html
"""

import torch
from torch import nn

from trainyard_parallel.private import ModelGradScaler, tree_map
from trainyard_parallel.state import state
from trainyard_parallel.tensor import DistributedModule

SCALE_DEFAULTS = {
    "init_scale": 2.0**32,
    "scale_factor": 2.0,
    "scale_window": 1000,
    "min_scale": 1,
    "delayed_shift": 1,
    "consecutive_hysteresis": False,
}
MASTER = "_smp_master"


def dtype():
    """The configured half precision, or None."""
    return torch.float16 if state.cfg.fp16 else torch.bfloat16 if state.cfg.bf16 else None


def cast_model(module):
    """Parameters and buffers that are floating-point become half; the parameters stay the same objects.

    With `fp16_params` alone only those of distributed modules do; the step then runs under torch.autocast.
    """
    if dtype() is not None:
        module.to(dtype())
    elif state.cfg.fp16_params:
        for part in module.modules():
            if isinstance(part, DistributedModule):
                part.to(torch.float16)


def cast_in(structure):
    return cast(structure, dtype()) if dtype() is not None else structure


def cast_out(structure):
    return cast(structure, torch.float32) if dtype() is not None else structure


def cast(structure, to):
    return tree_map(
        lambda leaf: leaf.to(to) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf, structure
    )


class LossScale:
    """A fixed factor, or one that follows overflows: ÷ `scale_factor` on an overflow, × it after `scale_window` steps
    without one.

    `delayed_shift` overflows in a row of windows are forgiven before the scale falls (hysteresis); the allowance is
    restored when the scale grows, or with `consecutive_hysteresis` by every step without overflow.
    """

    def __init__(self, static=1.0, dynamic=False, options=None):
        unknown = set(options or {}) - set(SCALE_DEFAULTS)
        if unknown:
            raise ValueError(f"dynamic_loss_args has {sorted(unknown)}; known are {sorted(SCALE_DEFAULTS)}")
        self.options = {**SCALE_DEFAULTS, **(options or {})}
        self.dynamic = dynamic
        self.scale = float(self.options["init_scale"] if dynamic else static or 1.0)
        self.allowance, self.steps, self.last_overflow = self.options["delayed_shift"], 0, -1

    def update(self, overflow):
        """Once per optimizer step, skipped or not."""
        if not self.dynamic:
            return
        if overflow:
            if self.allowance <= 1:
                self.scale = max(self.scale / self.options["scale_factor"], self.options["min_scale"])
            else:
                self.allowance -= 1
            self.last_overflow = self.steps
        else:
            grows = (self.steps - self.last_overflow) % self.options["scale_window"] == 0
            if grows:
                self.scale *= self.options["scale_factor"]
            if grows or self.options["consecutive_hysteresis"]:
                self.allowance = self.options["delayed_shift"]
        self.steps += 1

    def state_dict(self):
        return {"scale": self.scale, "allowance": self.allowance, "steps": self.steps, "last_overflow": self.last_overflow}

    def load_state_dict(self, saved):
        self.__dict__.update({key: saved[key] for key in self.state_dict()})


class Masters:
    """FP32 copies that take the place of an optimizer's half-precision parameters, in the same order."""

    def __init__(self, optimizer):
        self.of = {}
        for group in optimizer.param_groups:
            group["params"] = [self.replace(parameter, optimizer) for parameter in group["params"]]

    def replace(self, parameter, optimizer):
        if parameter.dtype not in (torch.float16, torch.bfloat16):
            return parameter
        master = nn.Parameter(parameter.detach().float(), requires_grad=parameter.requires_grad)
        if parameter in optimizer.state:
            optimizer.state[master] = optimizer.state.pop(parameter)
        self.of[master] = parameter
        return master

    def take_gradients(self, factor):
        """Gradients of the model's parameters in FP32, times `factor`."""
        for master, parameter in self.of.items():
            master.grad = None if parameter.grad is None else parameter.grad.float().mul_(factor)

    @torch.no_grad()
    def give_back(self):
        """The model's parameters become the rounding of the masters, whose gradients are dropped."""
        for master, parameter in self.of.items():
            parameter.copy_(master)
            master.grad = None

    @torch.no_grad()
    def follow_model(self):
        """After values were loaded into the model."""
        for master, parameter in self.of.items():
            master.copy_(parameter)

    @torch.no_grad()
    def load(self, parameters, saved):
        """Values by index among the optimizer's `parameters`; the model's parameters follow."""
        for index, value in saved.items():
            parameters[index].copy_(value)
        self.give_back()


class GradScaler(ModelGradScaler):
    """`smp.amp.GradScaler`: torch.amp.GradScaler for `torch.autocast` inside the step, without the `fp16` key.

    A gradient that overflows on one rank makes every rank skip the step. Works on a rank without parameters and with
    sharded optimizer state. Made after smp.init; `unscale_`, `step` and `update` are called by every rank.
    """

    def __init__(self, init_scale=2.0**16, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, enabled=True):
        state.require_init()
        super().__init__(
            state.process.device.type,
            init_scale=init_scale,
            growth_factor=growth_factor,
            backoff_factor=backoff_factor,
            growth_interval=growth_interval,
            enabled=enabled,
            process_group=state.group("world"),
        )

    def gradients(self, optimizer):
        return [p.grad for p in state.model.local_parameters() if p.grad is not None]


def flat(parameters):
    parts = [getattr(p.detach(), "to_local", p.detach)().reshape(-1) for p in parameters]
    return torch.cat(parts) if parts else torch.zeros(0, device=state.process.device)
