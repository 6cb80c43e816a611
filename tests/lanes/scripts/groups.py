"""A heterogeneous cluster: ranks over MPI in the group of the distribution, a plain process in the others."""

import os
import runpy

is_rank = 'OMPI_COMM_WORLD_RANK' in os.environ or 'PMIX_RANK' in os.environ
runpy.run_path('mpi_ranks.py' if is_rank else 'plain.py')
