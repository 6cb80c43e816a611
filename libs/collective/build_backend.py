"""Builds the wheel (PEP 517) with the standard library alone.

The extension is compiled against the torch of the interpreter that pip runs,
found in its site-packages even under build isolation, and the wheel then
requires exactly that minor version: c10d's classes change in every minor, and
an extension built for another one crashes.

Objects are cached by content in TRAINYARD_COLLECTIVE_BUILD_DIR (default:
`build/` beside this file), so that a second build compiles only what changed.
MAX_JOBS limits parallel compilers (default: the number of cores).
"""

import base64
import concurrent.futures
import hashlib
import importlib.machinery
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME = "trainyard_collective"
PACKAGES = ("trainyard_collective", "smdistributed")
SUPPORTED = ((2, 10), (2, 15))
CXX20_FROM = (2, 14)  # torch's headers demand it
FLAGS = ["-O3", "-fPIC", "-fwrapv", "-ffp-contract=off", "-fvisibility=hidden", "-Wall"]


class BuildError(RuntimeError):
    """The message says what is missing and what to do."""


def project_version():
    text = (HERE / "pyproject.toml").read_text()
    return re.search(r'^version = "(.+)"$', text, re.M).group(1)


def minor_of(version):
    return tuple(int(part) for part in version.split(".")[:2])


def find_torch():
    """Returns torch's folder and version without importing it."""
    places = [p for p in sys.path if p]
    places += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        places.append(site.getusersitepackages())
    # Path files of the environment may point to another one with torch.
    for place in list(places):
        for path_file in Path(place).glob("*.pth") if os.path.isdir(place) else ():
            places += [line.strip() for line in path_file.read_text().splitlines() if os.path.isdir(line.strip())]
    spec = importlib.machinery.PathFinder.find_spec("torch", places)
    if spec is None or spec.origin is None:
        raise BuildError(
            f"no torch found for {sys.executable}; install it first, e.g. "
            "`pip install torch==2.13.0`, then install this package again"
        )
    folder = Path(spec.origin).parent
    version = re.search(r"^__version__ = '(.+)'", (folder / "version.py").read_text(), re.M).group(1)
    if not SUPPORTED[0] <= minor_of(version) <= SUPPORTED[1]:
        raise BuildError(
            f"torch {version} is installed but this package supports "
            f"{'.'.join(map(str, SUPPORTED[0]))} to {'.'.join(map(str, SUPPORTED[1]))}; install one of those"
        )
    return folder, version


def find_compiler():
    name = os.environ.get("CXX", "")
    for candidate in (name,) if name else ("g++", "c++", "clang++"):
        path = shutil.which(candidate)
        if path:
            return path
    raise BuildError(
        f"no C++ compiler found ({name or 'g++, c++ or clang++'}); install one, e.g. `apt-get install g++`, or set CXX"
    )


def build_dir():
    return Path(os.environ.get("TRAINYARD_COLLECTIVE_BUILD_DIR") or HERE / "build")


def sources():
    return sorted((HERE / "csrc").rglob("*.cc"))


def source_key():
    """Names one build: sources, version of torch, interpreter, compiler."""
    digest = hashlib.sha256()
    for path in sorted((HERE / "csrc").rglob("*.*")) + [HERE / "build_backend.py"]:
        digest.update(str(path.relative_to(HERE)).encode() + b"\0" + path.read_bytes())
    compiler = subprocess.run([find_compiler(), "--version"], capture_output=True, check=True).stdout
    digest.update(f"{find_torch()} {sys.version} ".encode() + compiler)
    return digest.hexdigest()[:16]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def compile_one(compiler, source, include, objects):
    """Compiles one file unless an object of the same preprocessed text is there."""
    command = [compiler, *FLAGS, *include, str(source)]
    text = subprocess.run([*command, "-E", "-P"], capture_output=True, text=True)
    if text.returncode != 0:
        raise BuildError(f"failed: {' '.join(command)}\n{text.stderr}")
    key = hashlib.sha256((" ".join([compiler, *FLAGS]) + text.stdout).encode()).hexdigest()[:24]
    target = objects / f"{source.stem}-{key}.o"
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}.part")
        run([*command, "-c", "-o", str(part)])
        part.rename(target)
    return target


def build_extension(target):
    """Compiles and links the extension to the file `target`."""
    if not sys.platform.startswith("linux"):
        raise BuildError("this package needs Linux (futexes, memfd, epoll)")
    compiler = find_compiler()
    torch, version = find_torch()
    standard = "-std=c++20" if minor_of(version) >= CXX20_FROM else "-std=c++17"
    python = sysconfig.get_path("include")
    if not Path(python, "Python.h").exists():
        raise BuildError(f"no Python.h in {python}; install the headers, e.g. `apt-get install python3-dev`")
    plain = ["-std=c++17", f"-I{HERE}"]
    with_torch = [
        standard, f"-I{HERE}",
        "-isystem", str(torch / "include"),
        "-isystem", str(torch / "include/torch/csrc/api/include"),
        "-isystem", python,
        "-DTORCH_EXTENSION_NAME=_C",
    ]  # fmt: skip
    objects = build_dir() / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    # The slow files first: those that include torch.
    ordered = sorted(sources(), key=lambda path: "bindings" not in path.parts)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        outputs = list(
            pool.map(
                lambda path: compile_one(compiler, path, with_torch if "bindings" in path.parts else plain, objects),
                ordered,
            )
        )
    lib = torch / "lib"
    run(
        [compiler, "-shared", "-o", str(target), *map(str, outputs), f"-L{lib}",
         "-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python", "-Wl,-rpath,$ORIGIN/../torch/lib", "-pthread"]
    )  # fmt: skip


def extension_name():
    return "_C" + sysconfig.get_config_var("EXT_SUFFIX")


def build_info():
    _, version = find_torch()
    return f'"""Written by the build."""\n\nBUILT_FOR_TORCH = "{version}"\n__version__ = "{project_version()}"\n'


def unpack_into(folder):
    """Lays an importable copy of the packages out in `folder` (for tests)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        shutil.copytree(
            HERE / package, folder / package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
    (folder / NAME / "_build_info.py").write_text(build_info())
    extension = folder / NAME / extension_name()
    if not extension.exists():
        build_extension(extension.with_suffix(".part"))
        extension.with_suffix(".part").rename(extension)


def metadata():
    _, version = find_torch()
    major, minor = minor_of(version)
    return (
        "Metadata-Version: 2.1\n"
        "Name: trainyard-collective\n"
        f"Version: {project_version()}\n"
        "Summary: A torch.distributed backend for data-parallel training\n"
        "Requires-Python: >=3.10\n"
        f"Requires-Dist: torch >={major}.{minor},<{major}.{minor + 1}\n"
    )


def wheel_tag():
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{tag}-{tag}-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    info = f"{NAME}-{project_version()}.dist-info"
    staging = build_dir() / "wheel"
    shutil.rmtree(staging, ignore_errors=True)
    unpack_into(staging)
    wheel = f"{NAME}-{project_version()}-{wheel_tag()}.whl"
    files = {str(path.relative_to(staging)): path.read_bytes() for path in sorted(staging.rglob("*")) if path.is_file()}
    files[f"{info}/METADATA"] = metadata().encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: build_backend\nRoot-Is-Purelib: false\nTag: {wheel_tag()}\n".encode()
    )
    record = []
    with zipfile.ZipFile(Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}")
        record.append(f"{info}/RECORD,,")
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    shutil.rmtree(staging)
    return wheel


def build_sdist(sdist_directory, config_settings=None):
    import tarfile

    base = f"{NAME}-{project_version()}"
    path = Path(sdist_directory) / f"{base}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("pyproject.toml", "build_backend.py", "README.md", "csrc", *PACKAGES):
            archive.add(
                HERE / name,
                f"{base}/{name}",
                filter=lambda item: None if item.name.endswith((".so", ".pyc", "__pycache__")) else item,
            )
        content = metadata().encode()
        item = tarfile.TarInfo(f"{base}/PKG-INFO")
        item.size = len(content)
        import io

        archive.addfile(item, io.BytesIO(content))
    return path.name


if __name__ == "__main__":
    # `python build_backend.py FOLDER` lays out an importable copy;
    # `python build_backend.py --key` prints what names this build.
    try:
        if sys.argv[1:] == ["--key"]:
            print(source_key())
        else:
            unpack_into(sys.argv[1])
    except BuildError as error:
        sys.exit(f"build_backend: {error}")
