"""The wheel, the import names, and the private parts of torch that we lean on."""

import ast
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what the wheel holds, as pip lays it out."""
    sys.path.insert(0, str(ROOT))
    try:
        import build_backend
    finally:
        sys.path.remove(str(ROOT))
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_backend.build_wheel(str(folder))
    site = folder / "site"
    with zipfile.ZipFile(folder / wheel) as archive:
        assert archive.testzip() is None
        archive.extractall(site)
    return site


def run(installed, code):
    """Runs code in a bare interpreter that starts with the installed folder as a site directory."""
    below = [sysconfig.get_path("purelib"), str(Path(__import__("torch").__file__).parent.parent)]
    # First, for the runtime itself may have the library.
    start = f"import site, sys; [site.addsitedir(p) for p in {[str(installed), *below]!r}]; "
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start + code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torch_sagemaker_may_be_the_first_torch_import(installed):
    code = "import torch.sagemaker as tsm; import torch.sagemaker.logger; import torch; print(tsm.__file__, torch.sagemaker is tsm)"
    file, same = run(installed, code).split()
    assert same == "True" and Path(file).is_relative_to(installed)


def test_torch_sagemaker_after_torch_and_with_the_other_names(installed):
    code = (
        "import torch; import torch.sagemaker; import smdistributed.modelparallel.torch as smp; "
        "import smdistributed.modelparallel; from smdistributed.modelparallel.torch import exceptions; "
        "from smdistributed.modelparallel.backend import exceptions as other; "
        "print(smdistributed.modelparallel.__version__, smp.step.__module__, other.SMPError is exceptions.SMPError)"
    )
    assert run(installed, code) == "1.15.0 trainyard_parallel.step True"


def test_the_path_file_costs_no_torch(installed):
    assert run(installed, "print('torch' in sys.modules, 'trainyard_parallel' in sys.modules)") == "False True"


def test_smdistributed_is_shared_with_other_packages():
    # The data-parallel library ships into the same namespace: neither may own its __init__.
    assert not (ROOT / "smdistributed" / "__init__.py").exists()


def test_private_parts_of_torch_are_there_and_named_in_one_module():
    from trainyard_parallel import private

    assert all(callable(getattr(private, name)) for name in private.__all__)
    leaves, spec = private.tree_flatten({"a": (1, [2])})
    assert leaves == [1, 2] and private.tree_unflatten(leaves, spec) == {"a": (1, [2])}
    for path in (ROOT / "trainyard_parallel").rglob("*.py"):
        if path.name == "private.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            parts = [part for name in names if name.split(".")[0] == "torch" for part in name.split(".")]
            assert not any(part.startswith("_") and part != "__future__" for part in parts), (path, names)
