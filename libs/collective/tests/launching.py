"""Starts programs under torchrun and mpirun, as a user does, and leaves none of their processes behind."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

SECONDS = 300


def run_group(command, cwd, environment):
    """Returns the output; fails with it unless the command exits 0 within SECONDS."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        output = process.communicate()[0]
        raise AssertionError(f"{command} has not ended within {SECONDS} s; it wrote:\n{output[-6000:]}") from None
    assert process.returncode == 0, f"{command} ended with {process.returncode}:\n{output[-6000:]}"
    return output


def kill_tree(pid):
    """Kills a process and its descendants: launchers put ranks into sessions of their own."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            kill_tree(int(child))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def torchrun(ranks, program, *arguments, cwd, **environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks]
    return run_group([*command, program, *arguments], cwd, environment)


def find_mpirun():
    """Returns the path of mpirun, or None."""
    beside = Path(sysconfig.get_path("scripts")) / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def free_port():
    """A port that nobody listens on, as text. Connections that others make until it is used are not given such a low one."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return str(port)
            except OSError:
                continue


def mpirun(ranks, program, *arguments, cwd, **environment):
    command = [find_mpirun(), "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", ranks]
    return run_group(
        [*command, sys.executable, program, *arguments],
        cwd,
        {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **environment},
    )
