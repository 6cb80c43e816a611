"""The data-parallel library: a torch.distributed backend.

    import trainyard_collective                      # registers the backend
    torch.distributed.init_process_group("smddp")    # or "trainyard"

Importing also lets DDP take its gradient buckets from memory that the ranks of
a host share (DDP_DISABLE_COMM_MEM=0), unless you have set that variable.
"""

from trainyard_collective._check import check_torch

check_torch()

from trainyard_collective.flight_record import dump_flight_record  # noqa: E402
from trainyard_collective.memory import arena_stats, share_fsdp_memory  # noqa: E402
from trainyard_collective.registration import register  # noqa: E402
from trainyard_collective._build_info import __version__  # noqa: E402

register()

__all__ = ["__version__", "arena_stats", "dump_flight_record", "register", "share_fsdp_memory"]
