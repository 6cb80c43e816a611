"""Three degrees at once, on eight ranks: a lane that is run by hand, `script/test lane_eight_ranks.py`."""

import pytest

import test_parity
import test_tensor_huggingface
import test_v2
import test_v2_context

TP2, PP2 = {"tensor_parallel_degree": 2, "ddp": True}, {"pipeline_parallel_degree": 2}
SDP2 = {"sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100, "sdp_gradient_clipping": 1e9}


@pytest.mark.parametrize("order", ["DPT", "DTP", "PDT", "PTD", "TDP", "TPD"])
def test_pipeline_tensor_and_data_parallel(worlds, order):
    config = {**TP2, **PP2, "microbatches": 3, "placement_strategy": order, "prescaled_batch": order in ("DPT", "TPD")}
    test_parity.check(worlds(8), config)


def test_pipeline_tensor_and_data_parallel_with_sharded_state(worlds):
    test_parity.check(worlds(8), {**TP2, **PP2, "microbatches": 3, "shard_optimizer_state": True}, tied=False)


def test_shards_replicas_and_tensor_parallel(worlds):
    test_parity.check(worlds(8), {**TP2, **SDP2, "microbatches": 3, "prescaled_batch": True}, tied=False)


@pytest.mark.parametrize("name", ["gpt2", "neox"])
def test_hugging_face_models_on_all_three(worlds, name):
    test_tensor_huggingface.check(worlds(8), name, {**TP2, **PP2, "microbatches": 3})


def test_version_2_shards_replicas_and_tensor_parallel(worlds):
    test_v2.check(worlds(8), {"tensor_parallel_degree": 2, "hybrid_shard_degree": 2}, clip=0.1)


@pytest.mark.parametrize("kind", ["p2p", "all_gather"])
def test_version_2_sequences_shards_and_tensor_parallel(worlds, kind):
    config = {"tensor_parallel_degree": 2, "context_parallel_degree": 2, "hybrid_shard_degree": 4}
    test_v2_context.check(worlds(8), config, "llama", kind)
