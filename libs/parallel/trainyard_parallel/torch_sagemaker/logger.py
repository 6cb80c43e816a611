"""`torch.sagemaker.logger`."""

import logging


def get_logger(name="torch.sagemaker"):
    """The library's logger, which scripts share."""
    return logging.getLogger(name)
