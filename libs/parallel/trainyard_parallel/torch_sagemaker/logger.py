"""`torch.sagemaker.logger`."""

import logging


def get_logger(name="torch.sagemaker"):
    """The library's logger, which scripts share; it shows INFO and above unless its level has been set.

    It lies below torch's own logger, which writes to standard error and by itself shows warnings only.
    """
    logger = logging.getLogger(name)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    return logger
