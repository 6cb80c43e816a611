"""Model parallelism for PyTorch; scripts import it as `smdistributed.modelparallel.torch` or `torch.sagemaker`.

Importing this package costs no torch: it only makes `torch.sagemaker` findable.
"""

from trainyard_parallel import import_hook

__version__ = "0.1.0"
__all__ = ["import_hook"]
