"""`smp.DistributedModel`: the user's model, spread over ranks.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-customize-training-script-pt.html
"""

import functools
import warnings
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from trainyard_parallel import checkpointing, delayed, messages, offload, placement, precision, shard, tensor, uneven
from trainyard_parallel.chain import untouched
from trainyard_parallel.errors import SMPRuntimeError, not_available
from trainyard_parallel.pipeline import Pipeline
from trainyard_parallel.reducer import Overlap, reduce_gradients
from trainyard_parallel.state import state
from trainyard_parallel.suspension import Suspension, current

PARTIAL = "_smp_is_partial"


class DistributedModel(nn.Module):
    """Wraps the one model of this process. All ranks must construct it at the same place of the script.

    With pipeline parallelism the model is partitioned in the first step; until then every rank holds all of it, and
    `partitioned` is False. Gradients are averaged over micro-batches (`average_grads_across_microbatches`) and over
    data-parallel ranks every `backward_passes_per_step` steps: during the last backward (`overlapping_allreduce`), or at
    the end of the step.
    """

    def __init__(
        self,
        module,
        trace_device="gpu",
        trace_execution_times=False,
        overlapping_allreduce=True,
        backward_passes_per_step=1,
        average_grads_across_microbatches=True,
        bucket_cap_mb=25,
        trace_memory_usage=False,
        broadcast_buffers=True,
        gradient_as_bucket_view=False,
        find_unused_parameters=False,
    ):
        super().__init__()
        state.require_init()
        if isinstance(module, DistributedModel) or state.model is not None:
            raise SMPRuntimeError("a model is wrapped already; one process has one smp.DistributedModel")
        if trace_execution_times or trace_memory_usage:
            raise not_available("trace_execution_times and trace_memory_usage", "leave them False: costs are then estimated")
        if gradient_as_bucket_view:
            warnings.warn("gradient_as_bucket_view has no effect: gradients are reduced in temporary buckets", stacklevel=2)
        self.backward_passes_per_step = backward_passes_per_step
        self.average = average_grads_across_microbatches
        self.bucket_bytes = int(bucket_cap_mb * 2**20)
        self.broadcast_buffers = broadcast_buffers
        self.overlapping, self._overlap, self._hook = overlapping_allreduce, None, None
        self.joining = uneven.Joining(self)
        with delayed.resumed():
            self.module = tensor.distribute(module)
            precision.cast_model(self.module)
        delayed.settle_buffers(self.module)
        self.partitioned = False
        # Parameters that an earlier stage holds too.
        self.counted_elsewhere = set()
        self.stage_of, self.pipeline = {}, None
        cfg = state.cfg
        self.offloader = offload.Offloader(state.process.device, cfg.activation_loading_horizon) if cfg.offload_activations else None
        self._shared = []
        self._post_partition, self._post_step, self._pending = {}, {}, []
        self._microbatches = 1
        self._microbatch_scale, self._in_step, self._ran_backward, self._passes = 1.0, False, False, 0
        state.model = self
        if state.cfg.pipeline_parallel_degree == 1:
            if not shard.is_on():
                delayed.materialize(self.module.parameters())
            if state.recording is None:
                self.module.to(state.process.device)
                self.spread_parameters()
            shard.apply(self)
            self.partitioned = True
        self.names = {parameter: name for name, parameter in self.module.named_parameters()}

    # ---- running ----

    def forward(self, *args, **kwargs):
        args, kwargs = precision.cast_in((args, kwargs))
        suspension = getattr(current, "suspension", None)
        if suspension is not None:
            return precision.cast_out(suspension.suspend("call", (args, kwargs)))
        if state.cfg.pipeline_parallel_degree > 1:
            raise SMPRuntimeError(
                f"the model was called outside a step with pipeline_parallel_degree {state.cfg.pipeline_parallel_degree}; "
                "call it inside a function decorated with @smp.step"
            )
        return precision.cast_out(self.module(*args, **kwargs))

    def backward(self, tensors, grad_tensors=None):
        """As torch.autograd.backward, in place of `loss.backward()`; must be called once per model call."""
        suspension = getattr(current, "suspension", None)
        if suspension is not None:
            suspension.suspend("backward", (tensors, grad_tensors))
            return
        tensors = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        scale = self._loss_factor()
        if not self._in_step:
            self._before_backwards(1)
        torch.autograd.backward([t * scale for t in tensors] if scale != 1.0 else tensors, grad_tensors)
        if self._in_step:
            self._ran_backward = True
        else:
            self._after_backwards()

    def _loss_factor(self):
        own = self._microbatch_scale if self._in_step else 1.0
        return own * state.optimizer.loss_scale if state.optimizer is not None else own

    @contextmanager
    def in_step(self, microbatches):
        self._in_step = True
        # A communication hook averages over micro-batches itself.
        self._microbatches = microbatches if self.average else 1
        self._microbatch_scale = 1 / self._microbatches if self._hook is None else 1.0
        try:
            yield
        finally:
            self._in_step = False

    def run_step(self, owner, functions):
        """Runs the step function of every micro-batch, then reduces gradients."""
        self._ran_backward = False
        self.joining.step()
        if state.cfg.pipeline_parallel_degree == 1:
            self.sync_buffers()
            self._before_backwards(len(functions))
            results = []
            for index, fn in enumerate(functions):
                self.begin_task()
                shard.before_microbatch(self, index == len(functions) - 1 and self._is_boundary(1))
                results.append(fn())
        else:
            if not self.partitioned:
                self._partition(functions[0])
            self.sync_buffers()
            self._before_backwards(len(functions))
            results, self._ran_backward = self.pipeline.run(owner, functions, self._loss_factor())
        if self._ran_backward:
            self._after_backwards()
        for hook in list(self._post_step.values()):
            hook(self, state.optimizer)
        self._post_step.clear()
        return results

    def begin_task(self):
        """What is kept for a backward from now on belongs to another micro-batch."""
        if self.offloader is not None:
            self.offloader.begin_task()

    def _is_boundary(self, ahead=0):
        return (self._passes + ahead) % self.backward_passes_per_step == 0

    def _before_backwards(self, microbatches):
        """Before the backwards of a step: gradients are exchanged during those that complete an accumulation."""
        if not self.overlapping or not self._is_boundary(1) or state.size("dp") == 1 and self._hook is None:
            return
        elsewhere = set(self._shared)
        parameters = [p for p in self.default_reducer_parameters() if p.requires_grad and p not in elsewhere and not shard.is_sharded(p)]
        if self._overlap is None or list(map(id, self._overlap.parameters)) != list(map(id, parameters)):
            if self._overlap is not None:
                self._overlap.remove()
            self._overlap = Overlap(parameters, state.group("dp"), self.bucket_bytes, self._hook) if parameters else None
        if self._overlap is not None:
            self._overlap.begin(microbatches, self.joining.divisor(state.size("dp")))

    def _after_backwards(self):
        self._passes += 1
        if not self._is_boundary():
            return
        for parameter in self._shared:
            own = parameter if not parameter.is_meta else None
            gradient = torch.zeros(parameter.shape, dtype=parameter.dtype, device=state.process.device)
            if own is not None and own.grad is not None:
                gradient.copy_(own.grad)
            dist.all_reduce(gradient, group=state.group("pp"))
            if own is not None:
                own.grad = gradient
        if state.size("dp") == 1 and self._hook is None:
            # Nobody else has these parameters; walking through them all would cost a few percent of a small step.
            return
        plain = [p for p in self.default_reducer_parameters() if not shard.is_sharded(p)]
        if self._overlap is not None:
            self._overlap.finish()
            plain = [p for p in plain if p not in self._overlap.counts]
        reduce_gradients(plain, state.group("dp"), self.joining.divisor(state.size("dp")), self.bucket_bytes, self._hook)
        scaled = [p for _, p in self.scaled_batch_reducer_named_parameters() if not shard.is_sharded(p)]
        # Under sharding their gradients were divided in the layers, see DistributedModule.scaled.
        divisor = state.size("rdp") if state.cfg.prescaled_batch or shard.is_on() else state.size("dp")
        # A communication hook knows data-parallel groups only, so these are averaged without it.
        divisor *= self._microbatches if self._hook is not None else 1
        reduce_gradients(scaled, state.group("rdp"), self.joining.divisor(divisor), self.bucket_bytes)
        if shard.is_on() and state.size("tp") > 1:
            # FSDP has taken the mean over reduced-data-parallel ranks.
            sharded = [p for p in self.default_reducer_parameters() if shard.is_sharded(p)]
            reduce_gradients(sharded, state.group("tp"), state.size("tp"), self.bucket_bytes)

    # ---- partition ----

    def _partition(self, fn):
        probe = Suspension(fn)
        try:
            if probe.state[0] != "call":
                raise SMPRuntimeError("the step function did not call the model; call it, or remove @smp.step")
            args, kwargs = probe.state[1]
            cfg, device = state.cfg, state.process.device
            with untouched(self.module):
                stages = placement.module_stages(self.module, cfg, args, kwargs, device)
            module_names = {module: name or "the model" for name, module in self.module.named_modules()}
            self.stage_of = placement.units(self.module, stages)
            stage, count = state.rank("pp"), cfg.pipeline_parallel_degree
            checkpointing.check_cut(self.module, self.stage_of, module_names)
            units, names = checkpointing.fuse(self.module, self.stage_of, module_names)
            self.pipeline = Pipeline(
                self.module, units, names, stage, count, state.group("pp"), device, cfg
            )
            _, plan = self.pipeline.plan_for(args, kwargs)
        finally:
            probe.abandon()
        names = {parameter: name for name, parameter in self.module.named_parameters()}
        held = {
            parameter: plan.parameter_stages.get(parameter, {0}) for parameter in names
        }
        if state.process.rank == 0:
            for name, at in plan.calls:
                print(f"smp: {name} is on stage {at}", flush=True)
        self.pipeline.plans.clear()
        del plan
        self.counted_elsewhere = {p for p, at in held.items() if stage in at and stage != min(at)}
        self._keep_local({p for p, at in held.items() if stage in at}, [names[p] for p, at in held.items() if len(at) > 1])
        self.partitioned = True
        self.names = {parameter: name for name, parameter in self.module.named_parameters() if not parameter.is_meta}
        for state_dict, strict in self._pending:
            self._load_now(state_dict, strict)
        self._pending.clear()
        self.spread_parameters()
        if state.optimizer is not None:
            state.optimizer.keep_local()
        for hook in list(self._post_partition.values()):
            hook(self, state.optimizer)

    def plan_again(self):
        """After the units of the pipeline have changed."""
        module_names = {module: name or "the model" for name, module in self.module.named_modules()}
        self.pipeline.stage_of, self.pipeline.names = checkpointing.fuse(self.module, self.stage_of, module_names)
        self.pipeline.plans.clear()
        self.pipeline.schedules.clear()

    def _keep_local(self, local, shared_names):
        """Parameters of other stages become meta tensors; one meta parameter stands for all its names."""
        replaced = {}
        delayed.materialize(local)
        for module in self.module.modules():
            for key, parameter in module._parameters.items():
                if parameter is None:
                    continue
                if parameter in local:
                    parameter.data = parameter.data.to(state.process.device)
                else:
                    if parameter not in replaced:
                        replaced[parameter] = nn.Parameter(
                            torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad
                        )
                    module._parameters[key] = replaced[parameter]
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[key] = buffer.to(state.process.device)
        now = dict(self.module.named_parameters())
        self._shared = [now[name] for name in shared_names]

    def spread_parameters(self):
        """Every replica starts from the values of its first rank."""
        with torch.no_grad():
            for _, parameter in self.local_named_parameters(partitioned=True):
                kind = "rdp" if tensor.is_distributed(parameter) else "dp"
                dist.broadcast(parameter.data, state.ranks(kind)[0], group=state.group(kind))
        self.sync_buffers()

    def sync_buffers(self):
        if not self.broadcast_buffers or state.size("rdp") == 1:
            return
        for buffer in self.module.buffers():
            dist.broadcast(buffer, self.joining.source("rdp"), group=state.group("rdp"))

    # ---- what this rank holds ----

    def _require_partition(self):
        if not self.partitioned:
            raise SMPRuntimeError("the model is not partitioned before the first step; call this after it, or in a post-partition hook")

    def local_named_parameters(self, partitioned=None):
        if partitioned is None:
            self._require_partition()
        return ((name, p) for name, p in self.module.named_parameters() if not p.is_meta)

    def local_parameters(self):
        return (parameter for _, parameter in self.local_named_parameters())

    def local_named_buffers(self):
        self._require_partition()
        return self.module.named_buffers()

    def local_buffers(self):
        return (buffer for _, buffer in self.local_named_buffers())

    def local_named_modules(self):
        """Modules that run on this stage; a module that is cut counts on every stage."""
        self._require_partition()
        elsewhere = {
            inner for unit, at in self.stage_of.items() if at != state.rank("pp") for inner in unit.modules()
        }
        return ((name, module) for name, module in self.module.named_modules() if module not in elsewhere)

    def local_modules(self):
        return (module for _, module in self.local_named_modules())

    def get_module(self):
        return self.module

    def distributed_modules(self):
        return [module for module in self.module.modules() if isinstance(module, tensor.DistributedModule)]

    def is_distributed_parameter(self, parameter):
        return tensor.is_distributed(parameter)

    def is_distributed_buffer(self, buffer):
        return False

    def is_scaled_batch_parameter(self, parameter):
        return tensor.is_scaled_batch(parameter)

    def is_scaled_batch_buffer(self, buffer):
        return False

    def default_reducer_parameters(self):
        return [parameter for _, parameter in self.default_reducer_named_parameters()]

    def default_reducer_named_parameters(self):
        return ((n, p) for n, p in self.local_named_parameters() if not tensor.is_scaled_batch(p))

    def scaled_batch_reducer_named_parameters(self):
        return ((n, p) for n, p in self.local_named_parameters() if tensor.is_scaled_batch(p))

    # ---- state ----

    def local_state_dict(self):
        """This rank's part; the key `_smp_is_partial` marks it."""
        self._require_partition()
        full = self.module.state_dict()
        return {**{name: value for name, value in full.items() if not value.is_meta}, PARTIAL: state.cfg.pipeline_parallel_degree * state.cfg.tensor_parallel_degree > 1}

    def state_dict(self, gather_to_rank0=False):
        """The whole model on every rank that calls; all ranks of a model-parallel group must call it together."""
        if not self.partitioned:
            return self.module.state_dict()
        own = {name: shard.whole(value) for name, value in self.module.state_dict().items() if not value.is_meta}
        own = tensor.gather_state(self.module, own)
        if state.size("pp") > 1:
            parts = messages.allgather(own, messages.CommGroup.PP_GROUP)
            merged = {name: value for part in parts for name, value in part.items()}
            # In the order of the original model.
            own = {name: merged[name] for name in self.module.state_dict()}
        return {} if gather_to_rank0 and state.process.rank != 0 else own

    def load_state_dict(self, state_dict, strict=True, same_partition_load=False):
        """Takes a full state dict, or one of `local_state_dict`; before the partition it is kept and loaded then."""
        state_dict = dict(state_dict)
        if not self.partitioned:
            self._pending.append((state_dict, strict))
            return
        self._load_now(state_dict, strict)

    def _load_now(self, state_dict, strict):
        state_dict = dict(state_dict)
        partial = state_dict.pop(PARTIAL, False)
        own = self.module.state_dict()
        local = {name for name, value in own.items() if not value.is_meta}
        expected = local if partial else set(own)
        missing, unexpected = sorted(expected - set(state_dict)), sorted(set(state_dict) - set(own))
        if strict and (missing or unexpected):
            raise SMPRuntimeError(
                f"the state dict does not fit the model: missing {missing}, unexpected {unexpected}; load a checkpoint of "
                "this model (and of this partition, if it is partial), or pass strict=False"
            )
        if not partial:
            state_dict = tensor.cut_state(self.module, state_dict)
        with torch.no_grad():
            for name in local & set(state_dict):
                shard.copy(own[name], state_dict[name])
        if state.optimizer is not None:
            state.optimizer.follow_model()

    def cpu(self):
        """The whole model on the host of every rank, no longer distributed; a collective of the model-parallel group."""
        full = {name: value.cpu() for name, value in self.state_dict().items()}
        return full

    # ---- hooks ----

    def register_post_partition_hook(self, hook):
        """`hook(model, optimizer)` after the partition, before the first forward; at once if partitioned already."""
        if self.partitioned:
            hook(self, state.optimizer)
        return register(self._post_partition, hook)

    def register_post_step_hook(self, hook):
        """`hook(model, optimizer)` once, after the next step."""
        return register(self._post_step, hook)

    def register_comm_hook(self, state, callable):
        """`callable(state, bucket)` replaces the exchange of a bucket of gradients, as for torch's DDP: it returns a future
        of the bucket's tensor averaged over data-parallel ranks and over micro-batches. Once, before training; split
        parameters of tensor parallelism are averaged without it.
        """
        if self._hook is not None:
            raise SMPRuntimeError("a communication hook is registered already; a model has one")
        self._hook = functools.partial(callable, state)
        if self._overlap is not None:
            self._overlap.remove()
            self._overlap = None

    def join(self, divide_by_initial_world_size=True, enable=True):
        """`with model.join():` around a loop whose ranks have unequal numbers of steps; see uneven.py."""
        return self.joining.around(divide_by_initial_world_size, enable)


class Removable:
    def __init__(self, hooks, key):
        self._hooks, self._key = hooks, key

    def remove(self):
        self._hooks.pop(self._key, None)


def register(hooks, hook):
    key = object()
    hooks[key] = hook
    return Removable(hooks, key)
