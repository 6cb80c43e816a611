"""How the hosts of an mpirun reach each other: by the remote shell of Trainyard, elsewhere by ssh."""

import os
import re
import signal
import subprocess
import sys
import time

from common.utils import INPUT_DIR, on_trainyard, write_failure

READY_FILE = os.path.join(INPUT_DIR, 'sm_ready')
DONE_FILE = os.path.join(INPUT_DIR, 'sm_done')
SSHD = '/usr/sbin/sshd'
# Hosts may still install packages.
READY_SECONDS = 3600
POLL_SECONDS = 1
LEAD_CHECK_SECONDS = 60


def remote_shell():
    """The program that runs a command on another host: ssh's command line."""
    if on_trainyard():
        return os.path.join(os.path.dirname(os.environ['TRAINYARD_INIT_SOCKET']), 'bin', 'trainyard-rsh')
    return 'ssh'


def remote_environment():
    """What Open MPI needs to use it; 4.1 reads the first name, 5 the others."""
    return {
        'OMPI_MCA_plm_rsh_agent': remote_shell(),
        'PRTE_MCA_plm_ssh_agent': remote_shell(),
        'PRTE_MCA_plm_ssh_no_tree_spawn': '1',
        'OMPI_ALLOW_RUN_AS_ROOT': '1',
        'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
    }


def on_host(host, command):
    """Whether the command ended well on another host."""
    done = subprocess.run(
        [remote_shell(), host, command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return done.returncode == 0


def open_mpi_major():
    """@raises SystemExit where there is no mpirun"""
    try:
        text = subprocess.run(['mpirun', '--version'], stdout=subprocess.PIPE, check=True).stdout.decode()
    except OSError:
        words = 'The image has no mpirun; put Open MPI and mpi4py into it, or use Torchrun.'
        write_failure(words)
        sys.exit(words)
    match = re.search(r'\(Open MPI\) (\d+)\.', text)
    return int(match.group(1)) if match else 4


def start_ssh():
    """Lets the first host in; the images of AWS have one key pair for all hosts."""
    if not os.path.exists(SSHD):
        words = 'The image has no %s, by which mpirun reaches other hosts.' % SSHD
        write_failure(words)
        sys.exit(words)
    # A remote shell starts with the variables of this file.
    with open('/etc/environment', 'a', encoding='utf-8') as file:
        for name, value in os.environ.items():
            if '\n' not in value:
                file.write('%s=%s\n' % (name, value))
    os.makedirs('/var/run/sshd', exist_ok=True)
    subprocess.Popen([SSHD, '-D'])


def say_ready():
    with open(READY_FILE, 'w', encoding='utf-8'):
        pass


def wait_for_ready(hosts):
    """@raises SystemExit naming the hosts that are not ready in time"""
    deadline = time.monotonic() + READY_SECONDS
    waiting = list(hosts)
    while waiting:
        waiting = [host for host in waiting if not on_host(host, 'test -e ' + READY_FILE)]
        if waiting and time.monotonic() > deadline:
            words = 'Not ready for mpirun after %d s: %s.' % (READY_SECONDS, ', '.join(waiting))
            write_failure(words)
            sys.exit(words)
        if waiting:
            time.sleep(POLL_SECONDS)


def say_done(hosts):
    for host in hosts:
        on_host(host, 'touch ' + DONE_FILE)


def wait_for_lead(lead):
    """Returns when the first host is done, well or not: its end decides. A stop is not the end: the ranks save first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if on_trainyard():
        # Ends with everything else on that host.
        on_host(lead, 'exec sleep 2147483647')
        return
    checked = time.monotonic()
    while not os.path.exists(DONE_FILE):
        time.sleep(POLL_SECONDS)
        if time.monotonic() - checked > LEAD_CHECK_SECONDS:
            checked = time.monotonic()
            if not on_host(lead, 'true'):
                return
