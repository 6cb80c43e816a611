"""`torch.sagemaker.utils.utils`."""

import time
from contextlib import contextmanager

from torch.sagemaker.logger import get_logger


@contextmanager
def timeit(store=None, name="", logger=None, level="INFO"):
    """Logs how many seconds the block took; `store`, a dictionary, gets the value under `name`."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    if isinstance(store, dict):
        store[name] = seconds
    (logger or get_logger()).log({"DEBUG": 10, "INFO": 20, "WARNING": 30}.get(level, 20), "%s took %.3f s", name, seconds)
