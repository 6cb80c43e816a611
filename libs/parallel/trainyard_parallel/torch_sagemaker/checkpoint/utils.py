"""`torch.sagemaker.checkpoint.utils`: how many checkpoints a folder keeps."""

import re
import shutil
from pathlib import Path

from torch.sagemaker.logger import get_logger


def SORT_BY_LAST_INT(name):
    """A sort key: the last integer of a name, -1 without one."""
    return int((re.findall(r"\d+", name) or [-1])[-1])


def limit_num_subdirs(directory, max_num, sort_fn=SORT_BY_LAST_INT, regex=r".*\d.*", log=True):
    """Removes folders in `directory` whose whole names match `regex`, lowest by `sort_fn` first, until `max_num` are left.

    One rank does it, the one that calls it with `log` true, once all ranks have written. Returns the names removed;
    nothing is removed where `max_num` is None or less than 1.
    """
    if not log or max_num is None or max_num < 1:
        return []
    names = [path.name for path in Path(directory).iterdir() if path.is_dir() and re.fullmatch(regex, path.name)]
    removed = sorted(names, key=sort_fn)[: max(0, len(names) - max_num)]
    for name in removed:
        shutil.rmtree(Path(directory) / name)
        get_logger().info("removed %s: at most %d checkpoints are kept", Path(directory) / name, max_num)
    return removed
