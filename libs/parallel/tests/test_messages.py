"""Objects between ranks."""

import torch

from training import fresh


def exchange(rank):
    smp = fresh({"ddp": True, "pipeline_parallel_degree": 2})
    found = {"all": smp.allgather({"rank": rank, "t": torch.full((rank + 1,), rank)}, smp.WORLD)}
    found["dp"] = smp.allgather(rank, smp.DP_GROUP)
    found["mp"] = smp.allgather(rank, smp.CommGroup.MP_GROUP)
    if rank == 0:
        smp.broadcast("first", smp.WORLD)
        smp.send([1, torch.eye(2)], 3, smp.RankType.WORLD_RANK)
        smp.send("second", 1, smp.RankType.DP_RANK)
    else:
        found["broadcast"] = smp.recv_from(0, smp.RankType.WORLD_RANK)
        if rank == 3:
            found["sent"] = smp.recv_from(0, smp.RankType.WORLD_RANK)
        if rank == 2:
            found["sent"] = smp.recv_from(0, smp.RankType.DP_RANK)
    smp.barrier()
    smp.mp_barrier()
    smp.dp_barrier()
    try:
        smp.send(1, 7, smp.RankType.MP_RANK)
    except ValueError as error:
        found["error"] = str(error)
    return found


def test_objects_reach_the_ranks_they_are_sent_to(worlds):
    results = worlds(4).run(exchange)
    for rank, found in enumerate(results):
        assert [item["t"].tolist() for item in found["all"]] == [[r] * (r + 1) for r in range(4)]
        assert found["dp"] == [rank % 2, rank % 2 + 2] and found["mp"] == [rank - rank % 2, rank - rank % 2 + 1]
        assert rank == 0 or found["broadcast"] == "first"
        assert "rank 7 does not exist in MP_RANK, which has ranks 0 to 1" in found["error"]
    assert results[3]["sent"][0] == 1 and results[3]["sent"][1].tolist() == [[1, 0], [0, 1]]
    assert results[2]["sent"] == "second"
