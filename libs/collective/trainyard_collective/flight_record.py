"""The flight record: which operations were called, and how far they came."""

import os
import signal

DEFAULT_PREFIX = "/tmp/trainyard_trace_rank_"


def path_prefix():
    return os.environ.get("TRAINYARD_COLLECTIVE_DUMP_FILE", DEFAULT_PREFIX)


def dump_on_signal(rank):
    """Honours TRAINYARD_COLLECTIVE_DUMP_SIGNAL (a name or number; default: none).

    No signal is taken unasked: Slurm and Lightning use SIGUSR1 for themselves.
    """
    from trainyard_collective import _C

    chosen = os.environ.get("TRAINYARD_COLLECTIVE_DUMP_SIGNAL")
    if not chosen:
        return
    try:
        number = int(chosen) if chosen.isdigit() else signal.Signals[chosen].value
    except KeyError:
        raise ValueError(
            f"TRAINYARD_COLLECTIVE_DUMP_SIGNAL is {chosen!r} but must be the name or number of a signal, e.g. SIGUSR2"
        ) from None
    _C.dump_on_signal(number, path_prefix(), rank)


def dump_flight_record(prefix=None, rank=None):
    """Writes this process's record for `torchfrtrace` and returns the path.

    The file is `prefix` followed by the rank (default prefix:
    TRAINYARD_COLLECTIVE_DUMP_FILE or /tmp/trainyard_trace_rank_). Read the
    files of all ranks with
    `torchfrtrace --prefix trainyard_trace_rank_ FOLDER`.
    """
    from trainyard_collective import _C

    if prefix is None:
        prefix = path_prefix()
    if rank is None:
        rank = int(os.environ.get("RANK", "0"))
    path = f"{prefix}{rank}"
    with open(path + ".part", "wb") as file:
        file.write(_C.flight_record())
    os.replace(path + ".part", path)
    return path
