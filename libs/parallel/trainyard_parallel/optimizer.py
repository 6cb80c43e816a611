"""`smp.DistributedOptimizer`: the user's optimizer on this rank's parameters."""

import copy
import warnings

from trainyard_parallel import flat_shards, messages, shard
from trainyard_parallel.errors import SMPRuntimeError, not_available
from trainyard_parallel.state import state

PARTIAL = "_smp_is_partial"
SCALE_DEFAULTS = {
    "init_scale": 2.0**32,
    "scale_factor": 2.0,
    "scale_window": 1000,
    "min_scale": 1,
    "delayed_shift": 1,
    "consecutive_hysteresis": False,
}


class DistributedOptimizer:
    """Wraps one torch optimizer over the model's parameters, made before or (with tensor parallelism) after wrapping.

    Keeps only parameters of this rank's stage, shards its state with `shard_optimizer_state`, and clips the global norm
    to `sdp_gradient_clipping` inside `step` under sharded data parallelism. Loss-scale arguments act with fp16 only,
    which is not available yet. Works on a rank without parameters.
    """

    def __init__(self, optimizer, static_loss_scale=1.0, dynamic_loss_scale=False, dynamic_loss_args=None):
        state.require_init()
        if set(dynamic_loss_args or {}) - set(SCALE_DEFAULTS):
            raise ValueError(f"dynamic_loss_args has {sorted(set(dynamic_loss_args) - set(SCALE_DEFAULTS))}; known are {sorted(SCALE_DEFAULTS)}")
        if static_loss_scale != 1.0 or dynamic_loss_scale:
            warnings.warn("loss scaling acts with fp16 only and is ignored", stacklevel=2)
        self.optimizer = optimizer
        self._shards = None
        self._pending = None
        self._global_grad_norm = None
        self.overflow, self.loss_scale = False, 1.0
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
        if self._pending is not None:
            self._load_now(self._pending)
            self._pending = None

    def step(self, closure=None):
        """Updates the parameters; every rank must call it together under sharding."""
        if closure is not None:
            raise SMPRuntimeError("a closure cannot run a distributed step; call the step function, then optimizer.step()")
        if not state.model.partitioned:
            raise SMPRuntimeError("optimizer.step() was called before the first smp.step; call the step function first")
        if shard.is_on():
            self._global_grad_norm = shard.clip(list(state.model.local_parameters()), state.cfg.sdp_gradient_clipping)
        for part in self._shards or ():
            part.take_gradients()
        self.optimizer.step()
        for part in self._shards or ():
            part.restore()

    def zero_grad(self, set_to_none=True):
        # Under sharding the optimizer does not know the model's own parameters.
        for parameter in state.model.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.detach_().zero_()

    def clip_master_grads(self, max_norm):
        raise not_available("clip_master_grads (fp16)", "clip with torch.nn.utils.clip_grad_norm_ when pipeline and tensor degrees are 1")

    def local_state_dict(self, gather_if_shard=True):
        """This rank's part, by parameter names; a sharded state is one entry per flat range and cannot be gathered."""
        own = self.optimizer.state_dict()
        if self._shards is not None:
            return {**copy.copy(own), PARTIAL: True, "_smp_is_sharded": True}
        names = state.model.names
        order = [names[parameter] for group in self._named_groups for parameter in group]
        return {
            "state": {order[index]: value for index, value in own["state"].items()},
            "param_groups": [
                {**saved, "params": [names[p] for p in group]} for saved, group in zip(own["param_groups"], self._named_groups)
            ],
            PARTIAL: state.size("mp") > 1,
        }

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
        return {"state": {k: v for part in parts for k, v in part["state"].items()}, "param_groups": groups, PARTIAL: False}

    def load_state_dict(self, state_dict):
        """Takes what `state_dict` or `local_state_dict` gave; before the partition it is kept and loaded then."""
        if state.model is None or not state.model.partitioned:
            self._pending = state_dict
        else:
            self._load_now(state_dict)

    def _load_now(self, state_dict):
        state_dict = {key: value for key, value in state_dict.items() if key != PARTIAL}
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
        self.optimizer.load_state_dict(state_dict)
