"""Refuses a torch that the extension was not built for, before loading it."""


def minor_of(version):
    return ".".join(version.split(".")[:2])


def check_torch(installed=None, built_for=None):
    """Raises ImportError if torch's minor version is not the one built for.

    c10d's C++ classes change in every minor version: loading the extension
    under another one would corrupt memory instead of failing.
    """
    if built_for is None:
        try:
            from trainyard_collective._build_info import BUILT_FOR_TORCH as built_for
        except ImportError:
            raise ImportError(
                "trainyard_collective has not been built; run `pip install ./libs/collective` "
                "instead of importing it from the source folder"
            ) from None
    if installed is None:
        import torch

        installed = torch.__version__
    if minor_of(installed) != minor_of(built_for):
        raise ImportError(
            f"trainyard_collective was built for torch {minor_of(built_for)} ({built_for}) "
            f"but torch {installed} is installed; rebuild it with "
            "`pip install --force-reinstall --no-deps --no-cache-dir ./libs/collective`, or install torch "
            f"{minor_of(built_for)}"
        )
