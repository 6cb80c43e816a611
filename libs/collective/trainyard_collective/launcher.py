"""What launchers other than torchrun tell a rank, put into the variables that torch.distributed reads."""

import os

# rank, world size, local rank and ranks on this host, in the order in which launchers are believed.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
)
DEFAULT_PORT = "7592"  # SMDATAPARALLEL_SERVER_PORT's value on SageMaker


def find_launcher():
    """Returns the names of the variables of the launcher that started this process, or None."""
    for names in LAUNCHERS:
        if names[0] in os.environ and names[1] in os.environ:
            return names
    return None


def fill_environment():
    """Sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT from mpirun's variables, so
    that `init_process_group("smddp")` needs no more than under torchrun.

    What is set already stays. The address comes from SMDATAPARALLEL_SERVER_ADDR, or is this host's own if all ranks
    run on it; otherwise the user must set MASTER_ADDR, and torch says so. Slurm's variables are left alone: they are
    there in every process of a batch script, also in one that is no rank.
    """
    names = find_launcher()
    if names is None or names[0] == "SLURM_PROCID":
        return
    for ours, theirs in zip(LAUNCHERS[0], names):
        if theirs in os.environ:
            os.environ.setdefault(ours, os.environ[theirs])
    address = os.environ.get("SMDATAPARALLEL_SERVER_ADDR")
    if address is None and os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        address = "127.0.0.1"
    if address is not None:
        os.environ.setdefault("MASTER_ADDR", address)
        os.environ.setdefault("MASTER_PORT", os.environ.get("SMDATAPARALLEL_SERVER_PORT", DEFAULT_PORT))
