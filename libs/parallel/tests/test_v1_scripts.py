"""A script in the style of SageMaker's GPT samples, unchanged, under several configurations: one loss curve."""

import contextlib
import io
import json
import os

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")

TP2, PP2 = {"tensor_parallel_degree": 2, "ddp": True}, {"pipeline_parallel_degree": 2}


def script(rank, parameters, arguments):
    from training import forget

    forget()
    torch.set_default_dtype(torch.float32)
    os.environ["SM_HP_MP_PARAMETERS"] = json.dumps(parameters)
    printed = io.StringIO()
    try:
        import v1_gpt_script

        with contextlib.redirect_stdout(printed):
            v1_gpt_script.main(arguments)
    finally:
        del os.environ["SM_HP_MP_PARAMETERS"]
    return [float(line.split()[-1]) for line in printed.getvalue().splitlines() if " loss " in line]


def test_a_gpt_script_has_one_loss_curve(worlds, tmp_path):
    def run(size, parameters, *arguments):
        return worlds(size).run(script, parameters, ["--checkpoint_dir", str(tmp_path), *arguments])[0]

    (*losses, test) = expected = run(1, {"microbatches": 2}, "--use_distributed_transformer", "0")
    assert len(losses) == 4 and test < losses[0]
    for size, parameters, *arguments in (
        (1, {"microbatches": 2}),
        (2, {**TP2, "microbatches": 2, "prescaled_batch": True}),
        (4, {**TP2, **PP2, "microbatches": 4}, "--activation_strategy", "contiguous"),
        (4, {**TP2, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100, "sdp_gradient_clipping": 1e9}),
    ):
        # Float32, and loss_mb of 2 or 4 micro-batches.
        assert run(size, parameters, *arguments) == pytest.approx(expected, rel=1e-4), parameters
    half = run(2, {**TP2, "microbatches": 2, "fp16": True})
    assert half == pytest.approx(expected, rel=2e-2) and half != pytest.approx(expected, rel=1e-6)
    # What any of them saved is in Hugging Face's form; training goes on from it.
    assert run(2, {**TP2, "microbatches": 2}, "--fine_tune", "1")[0] < losses[1]
