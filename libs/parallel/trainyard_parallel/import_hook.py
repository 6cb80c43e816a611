"""Makes `torch.sagemaker` importable without writing into torch's folder.

`torch` is an installed package whose `__path__` is its own folder, so its
submodules are found there only. A finder for this one name points at the
folder `torch_sagemaker` beside this file; modules below it are found by
Python's ordinary path search. The wheel's .pth file imports this module when
the interpreter starts, so the finder is there before torch is.
"""

import importlib.util
import sys
from pathlib import Path

NAME = "torch.sagemaker"
FOLDER = Path(__file__).resolve().parent / "torch_sagemaker"


class SagemakerFinder:
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname != NAME:
            return None
        return importlib.util.spec_from_file_location(
            NAME, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
        )


if SagemakerFinder not in sys.meta_path:
    sys.meta_path.insert(0, SagemakerFinder)
