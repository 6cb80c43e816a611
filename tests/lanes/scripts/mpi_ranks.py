"""Meets all ranks over MPI."""

import json
import os

from mpi4py import MPI

world = MPI.COMM_WORLD
total = world.allreduce(world.rank + 1)
if world.rank == 0:
    with open(os.path.join(os.environ['SM_MODEL_DIR'], 'total.txt'), 'w') as file:
        file.write(str(total))
print('RESULT ' + json.dumps({'rank': world.rank, 'world': world.size, 'sum': total, 'host': MPI.Get_processor_name(),
                              'group': os.environ.get('SM_CURRENT_INSTANCE_GROUP')}), flush=True)
