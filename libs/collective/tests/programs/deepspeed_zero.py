"""Trains a small model with DeepSpeed as a user's script would; started by torchrun.

    deepspeed_zero.py FOLDER STAGE DTYPE BACKEND

Each rank writes FOLDER/rank-R.pt: its losses, the whole weights, the losses
after a checkpoint was saved and loaded, and the names of the operations that
reached the backend.
"""

import os
import pickle
import sys

if os.environ.get("RANKS_PER_HOST"):
    host = int(os.environ["RANK"]) // int(os.environ["RANKS_PER_HOST"])
    os.environ["TRAINYARD_COLLECTIVE_HOST_ID"] = f"host-{host}"

import deepspeed
import torch
import torch.distributed as dist
from torch import nn

import smdistributed.dataparallel.torch.torch_smddp  # noqa: F401

STEPS = 6
ACCUMULATION = 2
ROWS = 8
WIDTH = 24
LEARNING_RATE = 1e-2


def make_model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(WIDTH, 65), nn.Tanh(), nn.Linear(65, 33), nn.Tanh(), nn.Linear(33, 4))


def rows_of(rank, micro_step):
    generator = torch.Generator().manual_seed(1000 * micro_step + rank)
    return torch.randn(ROWS, WIDTH, generator=generator), torch.randn(ROWS, 4, generator=generator)


def configuration(stage, dtype):
    return {
        "train_micro_batch_size_per_gpu": ROWS,
        "gradient_accumulation_steps": ACCUMULATION,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": dtype == "bf16"},
        "zero_optimization": {
            "stage": stage,
            # Small, so that every parameter is sharded and several buckets arise.
            "stage3_param_persistence_threshold": 0,
            "reduce_bucket_size": 2000,
            "allgather_bucket_size": 2000,
            "stage3_prefetch_bucket_size": 1000,
            "overlap_comm": False,
        },
    }


def whole_weights(engine, stage):
    parameters = list(engine.module.parameters())
    if stage < 3:
        return torch.cat([p.detach().float().flatten() for p in parameters])
    with deepspeed.zero.GatheredParameters(parameters):
        return torch.cat([p.detach().float().flatten() for p in parameters])


def train(engine, rank, steps):
    losses = []
    for micro_step in range(steps.start * ACCUMULATION, steps.stop * ACCUMULATION):
        x, y = rows_of(rank, micro_step)
        dtype = next(engine.module.parameters()).dtype
        loss = nn.functional.mse_loss(engine(x.to(dtype)).float(), y)
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return losses


def operations_of_backend():
    from trainyard_collective import _C

    return sorted({entry["profiling_name"].split(":")[1] for entry in pickle.loads(_C.flight_record())["entries"]})


def main(folder, stage, dtype, backend):
    deepspeed.init_distributed(dist_backend=backend)
    rank = dist.get_rank()
    assert dist.get_backend() == backend
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=configuration(stage, dtype))
    losses = train(engine, rank, range(STEPS))
    weights = whole_weights(engine, stage)

    checkpoint = os.path.join(folder, "checkpoint")
    engine.save_checkpoint(checkpoint)
    after = train(engine, rank, range(STEPS, STEPS + 2))
    engine.load_checkpoint(checkpoint)
    again = train(engine, rank, range(STEPS, STEPS + 2))
    torch.save(
        {
            "losses": losses,
            "weights": weights,
            "after": after,
            "again": again,
            "operations": operations_of_backend() if backend != "gloo" else [],
        },
        os.path.join(folder, f"rank-{rank}.pt"),
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
