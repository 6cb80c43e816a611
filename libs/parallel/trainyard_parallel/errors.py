"""Errors, split by who must act; messages name the field, the value, the rule and the next step."""


class SMPError(Exception):
    """Base of everything that this library raises on purpose."""


class SMPConfigError(SMPError, ValueError):
    """The configuration cannot work; all problems are in one message (the script's author acts)."""


class SMPNotAvailable(SMPError, NotImplementedError):
    """A documented feature of SageMaker's library that this version does not have."""


class SMPRuntimeError(SMPError, RuntimeError):
    """A call at the wrong time or with values that cannot work on this configuration."""


class SMPUnsupportedPlacement(SMPError, RuntimeError):
    """The model does not run as a chain of stages; the message names the modules."""


def absent(feature, instead):
    """A callable that stands for a documented name and says so when it is used."""

    def refuse(*args, **kwargs):
        raise not_available(feature, instead)

    return refuse


def not_available(feature, instead):
    return SMPNotAvailable(f"{feature} is not available yet; {instead}")
