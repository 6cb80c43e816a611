"""`smp.DistributedOptimizer`: the user's optimizer on this rank's parameters."""

import copy
import warnings

from trainyard_parallel import flat_shards, messages, precision, shard
from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.gradient_norm import factor_for, global_norm, scale_gradients
from trainyard_parallel.state import state

PARTIAL = "_smp_is_partial"
LOSS_SCALE = "_smp_loss_scale"


class DistributedOptimizer:
    """Wraps one torch optimizer over the model's parameters, made before or (with tensor parallelism) after wrapping.

    Keeps only parameters of this rank's stage, shards its state with `shard_optimizer_state`, and clips the global norm
    to `sdp_gradient_clipping` inside `step` under sharded data parallelism. Works on a rank without parameters.

    With `fp16` or `bf16` the wrapped optimizer updates FP32 masters. With `fp16` losses are scaled by
    `static_loss_scale`, or by a scale that follows overflows (`dynamic_loss_scale`, `dynamic_loss_args` as in
    precision.SCALE_DEFAULTS); a step whose gradients are not finite on any rank is skipped on all, and `overflow` tells.
    """

    def __init__(self, optimizer, static_loss_scale=1.0, dynamic_loss_scale=False, dynamic_loss_args=None):
        state.require_init()
        if not state.cfg.fp16 and (static_loss_scale not in (None, 1.0) or dynamic_loss_scale):
            warnings.warn("loss scaling acts with fp16 only and is ignored", stacklevel=2)
            static_loss_scale, dynamic_loss_scale = 1.0, False
        self.scaler = precision.LossScale(static_loss_scale, dynamic_loss_scale, dynamic_loss_args)
        self.optimizer = optimizer
        self._shards = None
        self._pending = None
        self._masters = None
        self._global_grad_norm = None
        # What gradients are multiplied by on their way to the masters, once clip_master_grads has said it.
        self._clip = None
        self.overflow = False
        state.optimizer = self
        if state.model is not None and state.model.partitioned:
            self.keep_local()

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    @property
    def defaults(self):
        return self.optimizer.defaults

    @property
    def state(self):
        return self.optimizer.state

    @property
    def loss_scale(self):
        return self.scaler.scale

    @property
    def fp32_partitioned_groups_flat(self):
        """This rank's part of the FP32 masters, one flat tensor for each parameter group."""
        return [precision.flat(group["params"]) for group in self.optimizer.param_groups]

    def keep_local(self):
        """Called once when this rank's parameters are known."""
        local = set(state.model.local_parameters())
        for group in self.optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter in local]
        for parameter in list(self.optimizer.state):
            if parameter not in local:
                del self.optimizer.state[parameter]
        self._named_groups = [list(group["params"]) for group in self.optimizer.param_groups]
        if state.cfg.shard_optimizer_state:
            self._shards = flat_shards.flatten(self.optimizer)
        if precision.dtype() is not None:
            self._masters = precision.Masters(self.optimizer)
        if self._pending is not None:
            self._load_now(*self._pending)
            self._pending = None

    def step(self, closure=None):
        """Updates the parameters; every rank must call it together under sharding."""
        if closure is not None:
            raise SMPRuntimeError("a closure cannot run a distributed step; call the step function, then optimizer.step()")
        if not state.model.partitioned:
            raise SMPRuntimeError("optimizer.step() was called before the first smp.step; call the step function first")
        if shard.is_on():
            self.clip_master_grads(state.cfg.sdp_gradient_clipping)
        elif state.cfg.fp16 and self._clip is None:
            self.clip_master_grads(float("inf"))
        factor, self._clip = self._clip, None
        if not self.overflow:
            self._update(1.0 if factor is None else factor)
        self.scaler.update(self.overflow)

    def _update(self, factor):
        for part in self._shards or ():
            part.take_gradients()
        if self._masters is not None:
            self._masters.take_gradients(factor)
        self.optimizer.step()
        if self._masters is not None:
            self._masters.give_back()
        for part in self._shards or ():
            part.restore()

    def follow_model(self):
        """Called after values were loaded into the model: masters start from them again."""
        if self._masters is not None:
            self._masters.follow_model()

    def zero_grad(self, set_to_none=True):
        # Under sharding the optimizer does not know the model's own parameters.
        for parameter in state.model.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.detach_().zero_()

    def clip_master_grads(self, max_norm):
        """Makes the global norm over all stages, parts and shards at most `max_norm`; returns the norm before, without
        the loss scale, or -1 on an overflow. In any precision; once before `step`; every rank must call it.
        """
        norm = global_norm(state.model) / self.loss_scale
        self._global_grad_norm, self.overflow = norm, state.cfg.fp16 and not bool(norm.isfinite())
        if self._masters is None:
            scale_gradients(state.model, factor_for(norm, max_norm))
        else:
            # Infinity times zero would be no number.
            self._clip = 0.0 if self.overflow else factor_for(norm, max_norm).item() / self.loss_scale
        return -1 if self.overflow else norm

    def local_state_dict(self, gather_if_shard=True):
        """This rank's part, by parameter names; a sharded state is one entry per flat range and cannot be gathered."""
        own = self._own_state_dict()
        if self._shards is not None:
            return {**copy.copy(own), PARTIAL: True, "_smp_is_sharded": True}
        names = state.model.names
        order = [names[parameter] for group in self._named_groups for parameter in group]
        return {
            "state": {order[index]: value for index, value in own["state"].items()},
            "param_groups": [
                {**saved, "params": [names[p] for p in group]} for saved, group in zip(own["param_groups"], self._named_groups)
            ],
            LOSS_SCALE: own[LOSS_SCALE],
            PARTIAL: state.size("mp") > 1,
        }

    def _own_state_dict(self):
        """The inner optimizer's, with the FP32 master of each parameter beside its state, and the loss scale."""
        own = self.optimizer.state_dict()
        if self._masters is not None:
            parameters = (p for group in self.optimizer.param_groups for p in group["params"])
            own["state"] = {
                index: {**own["state"].get(index, {}), precision.MASTER: parameter.detach()}
                for index, parameter in enumerate(parameters)
            }
        own[LOSS_SCALE] = self.scaler.state_dict()
        return own

    def state_dict(self):
        """The whole state, by parameter names; all ranks of a pipeline group must call it together."""
        if state.cfg.tensor_parallel_degree > 1 or self._shards is not None or shard.is_on():
            raise SMPRuntimeError(
                "a full optimizer state is not supported with tensor_parallel_degree > 1, shard_optimizer_state or "
                "sharded_data_parallel_degree > 1; use local_state_dict on every rank"
            )
        own = self.local_state_dict()
        parts = messages.allgather(own, messages.CommGroup.PP_GROUP) if state.size("pp") > 1 else [own]
        groups = [
            {**group, "params": list(dict.fromkeys(n for part in parts for n in part["param_groups"][i]["params"]))}
            for i, group in enumerate(own["param_groups"])
        ]
        merged = {k: v for part in parts for k, v in part["state"].items()}
        return {"state": merged, "param_groups": groups, LOSS_SCALE: own[LOSS_SCALE], PARTIAL: False}

    def load_state_dict(self, state_dict, masters_only=False):
        """Takes what `state_dict` or `local_state_dict` gave; before the partition it is kept and loaded then.

        `masters_only` takes the FP32 masters and the loss scale and leaves the optimizer's own state as it is.
        """
        if state.model is None or not state.model.partitioned:
            self._pending = (state_dict, masters_only)
        else:
            self._load_now(state_dict, masters_only)

    def _load_now(self, state_dict, masters_only=False):
        # Resharding knows this rank's part only after the partition.
        state_dict = state_dict() if callable(state_dict) else state_dict
        state_dict = {key: value for key, value in state_dict.items() if key != PARTIAL}
        if LOSS_SCALE in state_dict:
            self.scaler.load_state_dict(state_dict.pop(LOSS_SCALE))
        if bool(state_dict.pop("_smp_is_sharded", False)) != (self._shards is not None):
            raise SMPRuntimeError(
                "the saved optimizer state and shard_optimizer_state do not agree: a sharded state is loaded with the "
                "same degrees and shard_optimizer_state true, an unsharded one with false"
            )
        if self._shards is None:
            names = state.model.names
            order = {names[p]: i for i, p in enumerate(p for group in self._named_groups for p in group)}
            state_dict = {
                "state": {order[name]: value for name, value in state_dict["state"].items() if name in order},
                "param_groups": [
                    {**saved, "params": [order[names[p]] for p in group]}
                    for saved, group in zip(state_dict["param_groups"], self._named_groups)
                ],
            }
        entries = {index: dict(entry) for index, entry in state_dict["state"].items()}
        masters = {index: entry.pop(precision.MASTER) for index, entry in entries.items() if precision.MASTER in entry}
        if not masters_only:
            # Without a state yet, as before the first step, optimizers expect no entry at all.
            self.optimizer.load_state_dict({**state_dict, "state": {k: v for k, v in entries.items() if v}})
        if self._masters is not None:
            self._masters.load({i: p for i, p in enumerate(p for g in self.param_groups for p in g["params"])}, masters)
