"""The device mesh that FSDP2 shards over."""


def shard_mesh(mesh):
    """The axes (replicate, shard) of `mesh`, or shard alone where nothing is replicated: FSDP2 then has no second
    reduction of every unit, which costs a copy and a call also among one rank.
    """
    return mesh["shard"] if mesh["replicate"].size() == 1 else mesh["replicate", "shard"]
