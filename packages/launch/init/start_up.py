"""When a forked interpreter would differ from a fresh one: the rules, as data.

A preloaded interpreter has read its start-up variables already, and so have the libraries in it. A request whose variables would
have made a difference is answered by a fresh interpreter. The fork server itself starts with none of these variables set and LANG=C.UTF-8.
"""

import os

# Read by the interpreter, the loader, the allocator, or a numerical library when it is loaded.
_READ_AT_START = (
    b'PYTHON', b'LD_', b'GLIBC_TUNABLES', b'MALLOC_', b'GCONV_PATH', b'OMP_', b'KMP_', b'GOMP_', b'MKL_', b'MKLDNN_', b'DNNL_',
    b'ONEDNN_', b'OPENBLAS_', b'GOTO_', b'BLIS_', b'VECLIB_', b'NUMEXPR_', b'NPY_', b'NUMPY_', b'ATEN_', b'C10_', b'TORCH_',
    b'TORCHDYNAMO_', b'TORCHINDUCTOR_', b'PYTORCH_', b'TRITON_', b'KINETO_', b'SYMPY_', b'MPMATH_', b'LANGUAGE', b'LC_', b'TZDIR',
)

# Of these: applied in the forked interpreter, or read only later.
_HANDLED = (
    b'PYTHONPATH', b'PYTHONUNBUFFERED', b'PYTHON_EXEC', b'OMP_NUM_THREADS', b'TORCH_NCCL_', b'TORCH_ELASTIC_', b'TORCH_HOME', b'TORCH_EXTENSIONS_DIR',
    b'LC_ALL', b'LC_CTYPE',
)

def environment_at_start():
    """The variables that this process was started with (bytes). In the C locale Python adds LC_CTYPE to its own, which a program started
    by us would take for its user's wish."""
    try:
        with open('/proc/self/environ', 'rb') as file:
            given = file.read()
    except OSError:
        return os.environb
    if not (b'\0' + given).count(b'\0LC_CTYPE='):
        os.environb.pop(b'LC_CTYPE', None)
    return os.environb


_LOCALES = (b'C.UTF-8', b'C.utf8')


def cold_reason(environment):
    """One sentence when `environment` (bytes) needs a fresh interpreter, else None."""
    for name, value in environment.items():
        if value and name.startswith(_READ_AT_START) and not name.startswith(_HANDLED):
            return '%s is read when an interpreter or library starts' % name.decode('utf-8', 'replace')
    locale = environment.get(b'LC_ALL') or environment.get(b'LC_CTYPE') or environment.get(b'LANG')
    if locale not in _LOCALES:
        return 'the locale is %s; preloaded interpreters have C.UTF-8' % ((locale or b'not set').decode('utf-8', 'replace'))
    threads = environment.get(b'OMP_NUM_THREADS')
    if threads and not (threads.isdigit() and int(threads) > 0):
        return 'OMP_NUM_THREADS is %s, not one number' % threads.decode('utf-8', 'replace')
    return None


def parse(arguments):
    """A command line of `python` (bytes) → (unbuffered, kind, index of the first argument of sys.argv) with kind one of b'script', b'module',
    b'command', or a str: why only a fresh interpreter will do."""
    unbuffered = False
    for index, argument in enumerate(arguments):
        if argument == b'-u':
            unbuffered = True
        elif argument in (b'-m', b'-c'):
            if index + 1 == len(arguments):
                return 'no argument after %s' % argument.decode()
            return unbuffered, b'module' if argument == b'-m' else b'command', index + 1
        elif argument.startswith(b'-'):
            return 'the option %s is for a fresh interpreter' % argument.decode('utf-8', 'replace')
        else:
            return unbuffered, b'script', index
    return 'no program is given'
