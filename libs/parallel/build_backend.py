"""Builds a pure Python wheel (PEP 517) with the standard library alone.

The wheel holds the two packages and `trainyard_parallel.pth`, which registers
the finder that makes `torch.sagemaker` importable at every interpreter start.
It requires no torch by name: pip would bring another build of it.
"""

import base64
import hashlib
import io
import re
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME = "trainyard_parallel"
PACKAGES = ("trainyard_parallel", "smdistributed")


def project_version():
    return re.search(r'^version = "(.+)"$', (HERE / "pyproject.toml").read_text(), re.M).group(1)


def metadata():
    return (
        "Metadata-Version: 2.1\nName: trainyard-parallel\n"
        f"Version: {project_version()}\nSummary: Model parallelism for PyTorch\nRequires-Python: >=3.10\n"
    )


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    info = f"{NAME}-{project_version()}.dist-info"
    files = {
        str(path.relative_to(HERE)): path.read_bytes()
        for package in PACKAGES
        for path in sorted((HERE / package).rglob("*.py"))
    }
    files[f"{NAME}.pth"] = (HERE / f"{NAME}.pth").read_bytes()
    files[f"{info}/METADATA"] = metadata().encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: build_backend\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = []
    wheel = f"{NAME}-{project_version()}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")
    return wheel


def build_sdist(sdist_directory, config_settings=None):
    base = f"{NAME}-{project_version()}"
    path = Path(sdist_directory) / f"{base}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("pyproject.toml", "build_backend.py", "README.md", f"{NAME}.pth", *PACKAGES):
            archive.add(
                HERE / name,
                f"{base}/{name}",
                filter=lambda item: None if item.name.endswith((".pyc", "__pycache__")) else item,
            )
        content = metadata().encode()
        item = tarfile.TarInfo(f"{base}/PKG-INFO")
        item.size = len(content)
        archive.addfile(item, io.BytesIO(content))
    return path.name
