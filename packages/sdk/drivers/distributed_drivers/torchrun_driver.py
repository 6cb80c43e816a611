"""torchrun on every host; ranks meet at the first one."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common.utils import become, has_efa, processes_per_host, script_arguments  # noqa: E402


def command():
    environment = os.environ
    hosts = int(environment['SM_HOST_COUNT'])
    prefix = ['neuron_parallel_compile'] if environment.get('RUN_NEURON_PARALLEL_COMPILE') == '1' else []
    words = [*prefix, 'torchrun', '--nnodes=%d' % hosts, '--nproc_per_node=%d' % processes_per_host()]
    if hosts > 1:
        words += [
            '--master_addr=' + environment['SM_MASTER_ADDR'],
            '--master_port=' + environment['SM_MASTER_PORT'],
            '--node_rank=' + environment['SM_CURRENT_HOST_RANK'],
        ]
    return [*words, environment['SM_ENTRY_SCRIPT'], *script_arguments()]


def added_environment():
    efa = {'FI_PROVIDER': 'efa', 'FI_EFA_USE_DEVICE_RDMA': '1', 'RDMAV_FORK_SAFE': '1'}
    network = {'NCCL_SOCKET_IFNAME': os.environ['SM_NETWORK_INTERFACE_NAME'], 'NCCL_PROTO': 'simple'}
    return {**network, **(efa if has_efa() else {})}


if __name__ == '__main__':
    become(command(), added_environment())
