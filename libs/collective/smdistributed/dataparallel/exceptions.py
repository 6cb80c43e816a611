"""Exception classes that SageMaker's launcher looks for in a script's stderr."""


class SMDDPError(RuntimeError):
    """A failure of the data-parallel library."""


class SMDDPConfigError(SMDDPError):
    """The job's configuration cannot work."""


class SMDDPTimeoutError(SMDDPError):
    """A rank did not answer in time."""
