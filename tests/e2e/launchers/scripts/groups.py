"""A heterogeneous cluster: hosts of the group `data` hand out numbers, ranks of the group `train` sum them."""

import json
import os
import socket
import time

PORT, NUMBERS, RANKS = 5555, 40, 4


def serve():
    with socket.create_server((os.environ['SM_CURRENT_HOST'], PORT)) as server:
        for index in range(RANKS):
            client, _ = server.accept()
            with client:
                client.sendall(json.dumps(list(range(NUMBERS))[index::RANKS]).encode())
    print('handed out', NUMBERS, flush=True)


def fetch(host):
    while True:
        try:
            with socket.create_connection((host, PORT), 60) as server:
                return json.loads(server.makefile().read())
        except ConnectionRefusedError:
            time.sleep(0.05)


def main():
    groups = json.loads(os.environ['SM_INSTANCE_GROUPS_DICT'])
    print('group', os.environ['SM_CURRENT_INSTANCE_GROUP'], os.environ['SM_CURRENT_INSTANCE_TYPE'],
          'all', os.environ['SM_INSTANCE_GROUPS'], 'distributed', os.environ['SM_DISTRIBUTION_INSTANCE_GROUPS'],
          'hetero', os.environ['SM_IS_HETERO'], flush=True)
    if 'OMPI_COMM_WORLD_RANK' not in os.environ:
        return serve()
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    total = world.allreduce(sum(fetch(groups['data']['hosts'][0])))
    print('rank', world.rank, 'of', world.size, 'on', os.uname().nodename, 'total', total, flush=True)


if __name__ == '__main__':
    main()
