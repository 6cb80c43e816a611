"""`torch.sagemaker.utils.utils`."""

import time
from contextlib import contextmanager

from torch.sagemaker.logger import get_logger


@contextmanager
def timeit(is_wanted=True, name="", rank=0):
    """Logs on rank 0 how many seconds the block took, if `is_wanted`."""
    start = time.perf_counter()
    yield
    if is_wanted and not rank:
        get_logger().info("%s took %.3f s", name, time.perf_counter() - start)
