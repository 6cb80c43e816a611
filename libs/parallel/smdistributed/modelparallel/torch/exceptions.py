"""Error classes; SageMaker's launcher imports this module to recognise failures."""

from trainyard_parallel.errors import SMPConfigError, SMPError, SMPNotAvailable, SMPRuntimeError, SMPUnsupportedPlacement

__all__ = ["SMPConfigError", "SMPError", "SMPNotAvailable", "SMPRuntimeError", "SMPUnsupportedPlacement"]
