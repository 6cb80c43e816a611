"""The flight record: which operations were called, and how far they came."""

import os

DEFAULT_PREFIX = "/tmp/trainyard_trace_rank_"


def dump_flight_record(prefix=None, rank=None):
    """Writes this process's record for `torchfrtrace` and returns the path.

    The file is `prefix` followed by the rank (default prefix:
    TRAINYARD_COLLECTIVE_DUMP_FILE or /tmp/trainyard_trace_rank_). Read the
    files of all ranks with
    `torchfrtrace --prefix trainyard_trace_rank_ FOLDER`.
    """
    from trainyard_collective import _C

    if prefix is None:
        prefix = os.environ.get("TRAINYARD_COLLECTIVE_DUMP_FILE", DEFAULT_PREFIX)
    if rank is None:
        rank = int(os.environ.get("RANK", "0"))
    path = f"{prefix}{rank}"
    with open(path + ".part", "wb") as file:
        file.write(_C.flight_record())
    os.replace(path + ".part", path)
    return path
