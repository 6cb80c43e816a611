"""Configuration: every key, aliases, and all problems in one message."""

import json

import pytest

from trainyard_parallel import config
from trainyard_parallel.errors import SMPConfigError

DOCUMENTED_V1 = {
    "pipeline_parallel_degree": 1, "microbatches": 1, "pipeline": "interleaved", "optimize": "memory",
    "placement_strategy": "cluster", "auto_partition": True, "default_partition": 0, "memory_weight": 0.8, "ddp": False,
    "ddp_dist_backend": "auto", "active_microbatches": 3, "deterministic_server": False, "tensor_parallel_degree": 1,
    "offload_activations": False, "activation_loading_horizon": 4, "shard_optimizer_state": False,
    "prescaled_batch": False, "skip_tracing": False, "fp16_params": False, "fp16": False, "bf16": False,
    "sharded_data_parallel_degree": 1, "sdp_reduce_bucket_size": 5e8, "sdp_param_persistence_threshold": 1e6,
    "sdp_max_live_parameters": 1e9, "sdp_hierarchical_allgather": True, "sdp_gradient_clipping": 1.0,
}  # fmt: skip
DOCUMENTED_V2 = {
    "hybrid_shard_degree": 0, "sm_activation_offloading": True, "activation_loading_horizon": 2,
    "fsdp_cache_flush_warnings": True, "allow_empty_shards": False, "tensor_parallel_degree": 1,
    "context_parallel_degree": 1, "expert_parallel_degree": 1,
}  # fmt: skip


def test_defaults_are_the_documented_ones():
    v1, v2 = vars(config.parse_v1({}, 1)), vars(config.parse_v2({}, 1))
    assert {key: v1[key] for key in DOCUMENTED_V1} == DOCUMENTED_V1
    assert {key: v2[key] for key in DOCUMENTED_V2} == DOCUMENTED_V2


def test_derived_defaults():
    assert config.parse_v1({"optimize": "speed"}, 1).memory_weight == 0.2
    assert config.parse_v1({"partitions": 4}, 4).active_microbatches == 6


@pytest.mark.parametrize("key", config.V1)
def test_a_wrong_type_is_refused_for_every_v1_key(key):
    with pytest.raises(SMPConfigError, match=f"{key} is"):
        config.parse_v1({key: ["no"]}, 1)


@pytest.mark.parametrize("key", config.V2)
def test_a_wrong_type_is_refused_for_every_v2_key(key):
    with pytest.raises(SMPConfigError, match=f"{key} is"):
        config.parse_v2({key: ["no"]}, 1)


def test_partitions_is_the_same_setting_as_pipeline_parallel_degree():
    assert config.parse_v1({"partitions": 2}, 2).pipeline_parallel_degree == 2
    assert config.parse_v1({"pipeline_parallel_degree": 2, "partitions": 2}, 2).partitions == 2
    with pytest.raises(SMPConfigError, match="partitions is 2 but pipeline_parallel_degree is 4"):
        config.parse_v1({"pipeline_parallel_degree": 4, "partitions": 2}, 4)


def test_all_problems_come_in_one_message():
    with pytest.raises(SMPConfigError) as caught:
        config.parse_v1({"microbatchs": 2, "pipeline": "fast", "tensor_parallel_degree": 2, "partitions": 4}, 6)
    message = str(caught.value)
    assert "microbatchs is no key of SMP v1; did you mean microbatches?" in message
    assert "pipeline is 'fast' but must be one of interleaved, simple" in message
    assert "6 ranks but pipeline_parallel_degree 4 × tensor_parallel_degree 2 needs a multiple of 8" in message
    assert "tensor_parallel_degree is 2, which needs ddp true" in message


@pytest.mark.parametrize(
    "given, world, words",
    [
        ({"hybrid_shard_degree": 2}, 1, "belongs to the other version"),
        ({"sharded_data_parallel_degree": 3, "ddp": True}, 4, "sharded_data_parallel_degree is 3 .* leave 4 data-parallel"),
        ({"sharded_data_parallel_degree": 2, "ddp": True, "partitions": 2}, 4, "does not go with pipeline_parallel_degree 2"),
        ({"sharded_data_parallel_degree": 2, "ddp": True, "shard_optimizer_state": True}, 2, "shards it already"),
        ({"load_partition": True}, 1, "partition_file must name the file of an earlier job"),
        ({"auto_partition": False}, 1, "default_partition must be given"),
        ({"default_partition": 2, "partitions": 2}, 2, "default_partition is 2 but must be less than .* 2"),
        ({}, 4, "ddp is false but 4 ranks are 4 times"),
        ({"microbatches": True}, 1, "microbatches is True but must be an integer of at least 1"),
        ({"memory_weight": 1.5}, 1, "memory_weight is 1.5 but must be a number from 0 to 1"),
        ({"fp16": True, "bf16": True}, 1, "fp16 and bf16 are both True; choose one"),
    ],
)
def test_what_v1_refuses(given, world, words):
    with pytest.raises(SMPConfigError, match=words):
        config.parse_v1(given, world)


@pytest.mark.parametrize(
    "given, world, words",
    [
        ({"tensor_parallel_degree": 3}, 4, "tensor_parallel_degree is 3 but must divide the 4 ranks"),
        ({"tensor_parallel_degree": 2, "hybrid_shard_degree": 4}, 4, "hybrid_shard_degree is 4 but must divide .* = 2"),
        ({"context_parallel_degree": 3}, 4, "context_parallel_degree is 3 but must divide 4 ranks"),
        ({"context_parallel_degree": 2, "hybrid_shard_degree": 1}, 4, "must divide hybrid_shard_degree 1"),
        ({"expert_parallel_degree": 4}, 6, "expert_parallel_degree is 4 but must divide 6 ranks"),
        ({"expert_parallel_degree": 2, "hybrid_shard_degree": 3}, 6, "2 but it or hybrid_shard_degree 3 must be a multiple"),
        ({"expert_parallel_degree": 2, "tensor_parallel_degree": 2}, 4, "2 does not go with tensor_parallel_degree 2"),
        ({"microbatches": 2}, 1, "belongs to the other version"),
    ],
)
def test_what_v2_refuses(given, world, words):
    with pytest.raises(SMPConfigError, match=words):
        config.parse_v2(given, world)


def test_the_launcher_gives_parameters_as_json(monkeypatch):
    monkeypatch.setenv("SM_HP_MP_PARAMETERS", json.dumps({"partitions": 2}))
    assert config.from_environment() == {"partitions": 2}
    monkeypatch.setenv("SM_HP_MP_PARAMETERS", "{no")
    with pytest.raises(SMPConfigError, match="SM_HP_MP_PARAMETERS is '{no', which is not JSON"):
        config.from_environment()
    monkeypatch.setenv("SM_HP_MP_PARAMETERS", "")
    assert config.from_environment() is None
