"""What users configure: one table for v1, one for v2; `parse` reports every problem in one message.

Facts: https://docs.aws.amazon.com/sagemaker/latest/dg/distributed-model-parallel-v2-reference.html and
aws/sagemaker-python-sdk@v2.150.0:doc/api/training/smd_model_parallel_general.rst
"""

import difflib
import json
import os
from dataclasses import dataclass
from itertools import permutations
from types import SimpleNamespace
from typing import Any, Callable

from trainyard_parallel.errors import SMPConfigError

ORDERS = {"cluster": "DPT", "spread": "TPD", **{"".join(p): "".join(p) for p in permutations("DPT")}}


@dataclass(frozen=True)
class Key:
    default: Any
    rule: str
    accepts: Callable[[Any], bool]
    # Values other than these need a part of the library that is absent; None: every value works.
    available: tuple | None = None


def is_int(low):
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_bool(value):
    return isinstance(value, bool)


def is_number(low, high):
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def is_one_of(*values):
    return lambda value: isinstance(value, str) and value in values


def flag(default, available=None):
    return Key(default, "true or false", is_bool, available)


def count(default, low=1, available=None):
    return Key(default, f"an integer of at least {low}", is_int(low), available)


def choice(default, *values, available=None):
    return Key(default, "one of " + ", ".join(values), is_one_of(*values), available)


V1 = {
    "pipeline_parallel_degree": count(1),
    "microbatches": count(1),
    "pipeline": choice("interleaved", "interleaved", "simple", "_only_forward"),
    "optimize": choice("memory", "memory", "speed"),
    "placement_strategy": choice("cluster", *ORDERS),
    "auto_partition": flag(True),
    "default_partition": count(0, 0),
    "memory_weight": Key(None, "a number from 0 to 1", is_number(0, 1)),
    "ddp": flag(False),
    "ddp_port": count(None, 0),
    "ddp_dist_backend": choice("auto", "auto", "nccl"),
    "active_microbatches": count(None),
    "deterministic_server": flag(False),
    "tensor_parallel_degree": count(1),
    "offload_activations": flag(False),
    "activation_loading_horizon": count(4),
    "shard_optimizer_state": flag(False),
    "prescaled_batch": flag(False),
    "skip_tracing": flag(False),
    "fp16_params": flag(False),
    "fp16": flag(False),
    "bf16": flag(False),
    "sharded_data_parallel_degree": count(1),
    "sdp_reduce_bucket_size": Key(5e8, "a positive number of elements", is_number(1, float("inf"))),
    "sdp_param_persistence_threshold": Key(1e6, "a number of elements", is_number(0, float("inf"))),
    "sdp_max_live_parameters": Key(1e9, "a positive number of elements", is_number(1, float("inf"))),
    "sdp_hierarchical_allgather": flag(True),
    "sdp_gradient_clipping": Key(1.0, "a positive number", is_number(1e-30, float("inf"))),
    "delayed_parameter_initialization": flag(False),
    "static_mode": flag(False),
    "fast_mode": flag(False),
    "load_partition": flag(False),
    "partition_file": Key(None, "a path", lambda value: isinstance(value, str)),
    "contiguous": flag(True),
    "horovod": flag(False, (False,)),
}
V1_ALIASES = {"partitions": "pipeline_parallel_degree"}

V2 = {
    "hybrid_shard_degree": count(0, 0),
    "sm_activation_offloading": flag(True),
    "activation_loading_horizon": count(2),
    "fsdp_cache_flush_warnings": flag(True),
    "allow_empty_shards": flag(False),
    "tensor_parallel_degree": count(1),
    "context_parallel_degree": count(1),
    "expert_parallel_degree": count(1),
    "random_seed": count(12345, 0),
}


def from_environment():
    """The launcher's parameters, or None; `SM_HP_MP_PARAMETERS` is a JSON object."""
    text = os.environ.get("SM_HP_MP_PARAMETERS")
    if not text:
        return None
    try:
        given = json.loads(text)
    except ValueError as error:
        raise SMPConfigError(
            f"SM_HP_MP_PARAMETERS is {text!r}, which is not JSON ({error}); "
            "pass `parameters` of the estimator as a dictionary"
        ) from error
    if not isinstance(given, dict):
        raise SMPConfigError(f"SM_HP_MP_PARAMETERS is {text!r}; a JSON object of parameters is needed")
    return given


def check_keys(given, table, other, name):
    """Returns (values, problems) of the keys one by one."""
    values = {key: entry.default for key, entry in table.items()}
    problems = []
    for key, value in given.items():
        if key not in table:
            near = difflib.get_close_matches(key, table, 1)
            hint = "it belongs to the other version of the library" if key in other else (
                f"did you mean {near[0]}?" if near else "remove it"
            )
            problems.append(f"{key} is no key of {name}; {hint}")
        elif not table[key].accepts(value) and not (value is None and table[key].default is None):
            problems.append(f"{key} is {value!r} but must be {table[key].rule}")
        elif table[key].available is not None and value not in table[key].available:
            problems.append(f"{key} is {value!r}, which is not available yet; leave it at {table[key].default!r}")
        else:
            values[key] = value
    return values, problems


def fail_on(problems, name):
    if problems:
        raise SMPConfigError(f"{name} configuration: " + "; ".join(problems))


def parse_v1(given, world_size):
    """Returns the complete v1 configuration as attributes; raises SMPConfigError with all problems."""
    given = dict(given)
    problems = []
    for alias, key in V1_ALIASES.items():
        if alias in given:
            value = given.pop(alias)
            if given.setdefault(key, value) != value:
                problems.append(f"{alias} is {value!r} but {key} is {given[key]!r}; they are one setting: give one of them")
    values, found = check_keys(given, V1, V2, "SMP v1")
    problems += found
    cfg = SimpleNamespace(**values)
    pp, tp, sdp = cfg.pipeline_parallel_degree, cfg.tensor_parallel_degree, cfg.sharded_data_parallel_degree
    if world_size % (pp * tp):
        problems.append(
            f"the job has {world_size} ranks but pipeline_parallel_degree {pp} × tensor_parallel_degree {tp} needs a "
            f"multiple of {pp * tp}; change the degrees, instance_count or processes_per_host"
        )
    else:
        rdp = world_size // (pp * tp)
        if rdp % sdp:
            problems.append(
                f"sharded_data_parallel_degree is {sdp} but {world_size} ranks / (pipeline_parallel_degree {pp} × "
                f"tensor_parallel_degree {tp}) leave {rdp} data-parallel ranks, which {sdp} does not divide"
            )
    if not cfg.auto_partition and "default_partition" not in given:
        problems.append("auto_partition is False, so default_partition must be given")
    if cfg.load_partition and not cfg.partition_file:
        problems.append("load_partition is True, so partition_file must name the file of an earlier job")
    if cfg.default_partition >= pp:
        problems.append(f"default_partition is {cfg.default_partition} but must be less than pipeline_parallel_degree {pp}")
    if not cfg.ddp:
        for key in ("tensor_parallel_degree", "sharded_data_parallel_degree"):
            if values[key] > 1:
                problems.append(f"{key} is {values[key]}, which needs ddp true")
        for key in ("ddp_port", "ddp_dist_backend"):
            if key in given and given[key] not in (None, V1[key].default):
                problems.append(f"{key} is {given[key]!r}, which needs ddp true")
        if pp * tp != world_size and world_size % (pp * tp) == 0:
            problems.append(
                f"ddp is false but {world_size} ranks are {world_size // (pp * tp)} times pipeline_parallel_degree {pp} × "
                f"tensor_parallel_degree {tp}; set ddp true or start {pp * tp} ranks"
            )
    if sdp > 1 and pp > 1:
        problems.append(f"sharded_data_parallel_degree {sdp} does not go with pipeline_parallel_degree {pp}; make one of them 1")
    if sdp > 1 and cfg.shard_optimizer_state:
        problems.append("shard_optimizer_state true does not go with sharded_data_parallel_degree > 1, which shards it already")
    if cfg.fp16 and cfg.bf16:
        problems.append("fp16 and bf16 are both True; choose one of them")
    fail_on(problems, "SMP v1")
    cfg.partitions = pp
    if cfg.memory_weight is None:
        cfg.memory_weight = 0.2 if cfg.optimize == "speed" else 0.8
    if cfg.active_microbatches is None:
        cfg.active_microbatches = pp + 2
    return cfg


def parse_v2(given, world_size):
    """Returns the complete v2 configuration as attributes; raises SMPConfigError with all problems."""
    values, problems = check_keys(given, V2, V1, "SMP v2")
    cfg = SimpleNamespace(**values)
    tp, shard = cfg.tensor_parallel_degree, cfg.hybrid_shard_degree
    cp, ep = cfg.context_parallel_degree, cfg.expert_parallel_degree
    if world_size % tp:
        problems.append(f"tensor_parallel_degree is {tp} but must divide the {world_size} ranks of the job")
    else:
        data = world_size // tp
        rest = f"{world_size} ranks / tensor_parallel_degree {tp} = {data}"
        if shard and data % shard:
            problems.append(f"hybrid_shard_degree is {shard} but must divide {rest}")
        if data % cp:
            problems.append(f"context_parallel_degree is {cp} but must divide {rest}")
        elif shard % cp:
            problems.append(
                f"context_parallel_degree is {cp} but must divide hybrid_shard_degree {shard}: the ranks that share a "
                "sequence lie in one shard group; raise hybrid_shard_degree or leave it at 0"
            )
        if data % ep:
            problems.append(f"expert_parallel_degree is {ep} but must divide {rest}")
        elif shard % ep and ep % shard:
            problems.append(f"expert_parallel_degree is {ep} but it or hybrid_shard_degree {shard} must be a multiple of the other")
    if ep > 1 and tp > 1:
        problems.append(f"expert_parallel_degree {ep} does not go with tensor_parallel_degree {tp}; make one of them 1")
    fail_on(problems, "SMP v2")
    return cfg
