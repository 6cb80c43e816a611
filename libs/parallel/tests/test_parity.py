"""N ranks equal one process: losses and all weights after four steps, in float64.

Bound: 1e-12 relative to the largest element of each tensor.
"""

import pytest

import zoo
from training import compare, train

BOUND = 1e-12
PP2, TP2, DDP = {"pipeline_parallel_degree": 2}, {"tensor_parallel_degree": 2, "ddp": True}, {"ddp": True}


def check(world, config, kind="gpt", **options):
    for loss, weights in world.run(compare, config, kind, options.pop("optimizer", "adamw"), options):
        assert loss <= BOUND and weights <= BOUND, (loss, weights)


@pytest.mark.parametrize("microbatches", [1, 2, 4])
@pytest.mark.parametrize("kind, optimizer", [("mlp", "sgd"), ("gpt", "adamw")])
def test_one_rank_with_microbatches(worlds, microbatches, kind, optimizer):
    check(worlds(1), {"microbatches": microbatches}, kind, optimizer=optimizer)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("microbatches", [1, 3])
def test_data_parallel(worlds, ranks, microbatches):
    check(worlds(ranks), {**DDP, "microbatches": microbatches})


@pytest.mark.parametrize("pipeline", ["simple", "interleaved"])
@pytest.mark.parametrize("microbatches, active", [(1, 4), (2, 4), (6, 1), (6, 4), (12, 4)])
def test_pipeline_of_two(worlds, pipeline, microbatches, active):
    check(worlds(2), {**PP2, "pipeline": pipeline, "microbatches": microbatches, "active_microbatches": active})


@pytest.mark.parametrize("pipeline", ["simple", "interleaved"])
@pytest.mark.parametrize("ranks, microbatches", [(3, 6), (4, 4)])
def test_pipeline_of_three_and_four(worlds, ranks, microbatches, pipeline):
    check(worlds(ranks), {"pipeline_parallel_degree": ranks, "microbatches": microbatches, "pipeline": pipeline})


@pytest.mark.parametrize("options", [{"skip_tracing": True}, {"memory_weight": 0.0}, {"optimize": "speed"}])
def test_pipeline_with_other_partitions(worlds, options):
    check(worlds(2), {**PP2, "microbatches": 2, **options})


def test_pipeline_of_a_sequential_with_sgd(worlds):
    check(worlds(2), {**PP2, "microbatches": 3}, "mlp", optimizer="sgd")


@pytest.mark.parametrize("placement", ["cluster", "spread"])
def test_pipeline_and_data_parallel(worlds, placement):
    check(worlds(4), {**PP2, **DDP, "microbatches": 3, "placement_strategy": placement})


@pytest.mark.parametrize("prescaled", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_tensor_parallel(worlds, prescaled, tied):
    check(worlds(2), {**TP2, "prescaled_batch": prescaled, "microbatches": 2}, tied=tied)


@pytest.mark.parametrize("prescaled", [False, True])
def test_tensor_and_data_parallel(worlds, prescaled):
    check(worlds(4), {**TP2, "prescaled_batch": prescaled, "microbatches": 3}, tied=False)


@pytest.mark.parametrize("order", ["DPT", "TPD", "PTD"])
@pytest.mark.parametrize("prescaled", [False, True])
def test_tensor_and_pipeline_parallel(worlds, order, prescaled):
    check(worlds(4), {**TP2, **PP2, "microbatches": 3, "prescaled_batch": prescaled, "placement_strategy": order})


@pytest.mark.parametrize(
    "ranks, config", [(2, DDP), (4, DDP), (4, TP2), (4, {**PP2, **DDP})], ids=["dp2", "dp4", "tp2dp2", "pp2dp2"]
)
def test_sharded_optimizer_state(worlds, ranks, config):
    check(worlds(ranks), {**config, "shard_optimizer_state": True, "microbatches": 3}, tied=config is DDP)


@pytest.mark.parametrize("ranks, degree", [(2, 2), (4, 2), (4, 4)])
@pytest.mark.parametrize("threshold", [0, 100])
def test_sharded_data_parallel(worlds, ranks, degree, threshold):
    config = {
        **DDP,
        "sharded_data_parallel_degree": degree,
        "sdp_param_persistence_threshold": threshold,
        "sdp_gradient_clipping": 1e9,
        "microbatches": 3,
    }
    check(worlds(ranks), config)


@pytest.mark.parametrize("prescaled", [False, True])
@pytest.mark.parametrize("threshold", [0, 200])
def test_sharded_data_and_tensor_parallel(worlds, prescaled, threshold):
    config = {
        **TP2,
        "sharded_data_parallel_degree": 2,
        "sdp_param_persistence_threshold": threshold,
        "sdp_gradient_clipping": 1e9,
        "prescaled_batch": prescaled,
        "microbatches": 3,
    }
    check(worlds(4), config, tied=False)


def bfloat16(rank):
    config = {**DDP, "sharded_data_parallel_degree": 2, "bf16": True, "sdp_param_persistence_threshold": 100}
    losses, weights = train(rank, config, "mlp", "sgd")
    return losses, {str(value.dtype) for value in weights.values()}


def test_sharded_data_parallel_in_bfloat16(worlds):
    expected, _ = zoo.train_alone("mlp", "sgd")
    for losses, dtypes in worlds(2).run(bfloat16):
        assert dtypes == {"torch.bfloat16"}
        assert losses == pytest.approx(expected, rel=2e-2)


def test_the_reference_learns():
    losses, _ = zoo.train_alone("gpt")
    assert losses[-1] < losses[0]
