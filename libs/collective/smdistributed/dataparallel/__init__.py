"""The import names of SageMaker's data-parallel library, served by
trainyard_collective. `smdistributed` itself is a namespace package, shared
with `smdistributed.modelparallel`.
"""

__version__ = "2.6.0"  # the version whose interface this follows
