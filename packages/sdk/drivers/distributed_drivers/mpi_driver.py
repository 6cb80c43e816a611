"""mpirun on the first host over all hosts; the others wait for its end."""

import importlib.util
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common.utils import (  # noqa: E402
    ENVIRONMENT_FILE,
    become,
    has_efa,
    on_trainyard,
    processes_per_host,
    run,
    script_arguments,
)
from distributed_drivers.mpi_utils import (  # noqa: E402
    open_mpi_major,
    remote_environment,
    say_done,
    say_ready,
    start_ssh,
    wait_for_lead,
    wait_for_ready,
)


def command(hosts, major):
    """Every rank of the job in one command. SageMaker's Python SDK 3 gives `-np` for one host only."""
    interface = os.environ['SM_NETWORK_INTERFACE_NAME']
    processes = processes_per_host()
    names = ['%s:%d' % (host, processes) for host in hosts] if processes > 1 else hosts
    options = json.loads(os.environ['SM_DISTRIBUTED_CONFIG']).get('mpi_additional_options') or []
    efa = ['-x', 'FI_PROVIDER=efa', '-x', 'NCCL_PROTO=simple', '-x', 'FI_EFA_USE_DEVICE_RDMA=1']
    exported = [word for name in ('LD_LIBRARY_PATH', 'PATH', 'PYTHONPATH') if name in os.environ for word in ('-x', name)]
    return [
        *['mpirun', '--host', ','.join(names), '-np', str(processes * len(hosts))],
        *['--allow-run-as-root', '--tag-output'],
        # What 4.1 does by itself; Open MPI 5 would deal the ranks over the hosts in turn.
        *(['--map-by', 'slot', '--bind-to', 'none'] if major >= 5 else []),
        *['-mca', 'btl_tcp_if_include', interface, '-mca', 'oob_tcp_if_include', interface],
        *['-mca', 'plm_rsh_no_tree_spawn', '1', '-mca', 'pml', 'ob1', '-mca', 'btl', '^openib'],
        *['-mca', 'orte_abort_on_non_zero_status', '1', '-mca', 'btl_vader_single_copy_mechanism', 'none'],
        *['-mca', 'plm_rsh_num_concurrent', str(len(hosts)), '-x', 'NCCL_SOCKET_IFNAME=' + interface],
        *exported,
        *(efa if has_efa() else []),
        *options,
        *rank_command(),
    ]


def rank_command():
    mpi4py = ['-m', 'mpi4py'] if importlib.util.find_spec('mpi4py') else []
    words = [sys.executable, *mpi4py, os.environ['SM_ENTRY_SCRIPT'], *script_arguments()]
    if not on_trainyard():
        return words
    # The remote shell brings the first host's variables; each rank takes those of its own host.
    return ['/bin/bash', '-c', 'source "$0" && exec "$@"', ENVIRONMENT_FILE, *words]


def main():
    hosts = json.loads(os.environ['SM_HOSTS'])
    lead, *others = hosts
    if not on_trainyard():
        start_ssh()
    if os.environ['SM_CURRENT_HOST'] != lead:
        say_ready()
        wait_for_lead(lead)
        return
    wait_for_ready(others)
    major = open_mpi_major()
    if on_trainyard():
        become(command(hosts, major), remote_environment())
    code = run(command(hosts, major), dict(os.environ))
    say_done(others)
    sys.exit(code)


if __name__ == '__main__':
    main()
