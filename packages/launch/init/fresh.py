"""Makes the forked copy of a preloaded interpreter like one that has just started, runs the program, and ends like it.

Differences that remain, on purpose: more modules are loaded; hash randomisation is the server's; frames of this file lie below the
program's first; module globals are not torn down at the end (no `__del__` then), but threads are joined, atexit functions run, and files
left open are closed.
"""

import atexit
import builtins
import ctypes
import gc
import importlib.machinery
import io
import locale
import os
import random
import runpy
import signal
import site
import sys
import threading
import time
import types
import weakref

_HERE = os.path.dirname(os.path.abspath(__file__))
# What Python itself does with signals when it starts.
_HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGPIPE: signal.SIG_IGN, signal.SIGXFSZ: signal.SIG_IGN}
_OPENBLAS_SETTERS = ('scipy_openblas_set_num_threads64_', 'scipy_openblas_set_num_threads', 'openblas_set_num_threads64_',
                     'openblas_set_num_threads')

# A fresh launcher is busy tearing itself down for that long, in which the others read the last barrier from the store that lives in it;
# without, they log a lost connection although all went well.
_LAUNCHER_GRACE_S = 0.3


class FreshInterpreter:
    """Made when everything is loaded. What needs a look at all modules is done here once: in a fork, each look would copy a page.

    @param search_path `sys.path` of a fresh interpreter without the program's directory
    @param at_start names of the modules that every interpreter has loaded before it looks at a program's directory
    """

    def __init__(self, search_path, at_start):
        self._search_path = list(search_path)
        self._ours = [name for name, module in sys.modules.items() if _is_ours(module)]
        loaded = {name.partition('.')[0] for name in sys.modules if name not in self._ours}
        self._loaded = loaded - set(at_start) - set(sys.builtin_module_names)
        # At its end, a fresh interpreter would take apart what the libraries registered when they were loaded; the process ends anyway.
        for finalizer in list(weakref.finalize._registry):
            finalizer.atexit = False

    def shadowed(self, request):
        """One sentence when the program's own directories hold something that a fresh interpreter would load instead of what is loaded."""
        listed = request.environment.get(b'PYTHONPATH')
        entries = [os.fsdecode(entry) for entry in listed.split(b':')] if listed else []
        script = os.path.join(request.cwd, request.argv[0])
        first = os.path.dirname(os.path.realpath(os.fsdecode(script))) if request.kind == b'script' else ''
        for place, entry in enumerate([first, *entries]):
            directory = os.path.join(os.fsdecode(request.cwd), entry)
            try:
                names = os.listdir(directory)
            except OSError:
                continue
            for name in names:
                module = name.partition('.')[0]
                if module in self._loaded or place and module in ('sitecustomize', 'usercustomize'):
                    if _is_importable(directory, name, module):
                        return '%s/%s comes before the preloaded %s' % (directory, name, module)
        if site.ENABLE_USER_SITE:
            home = os.fsdecode(request.environment.get(b'HOME', b'/nonexistent'))
            packages = '%s/.local/lib/python%d.%d/site-packages' % (home, *sys.version_info[:2])
            if os.path.isdir(packages):
                return '%s has packages of its own' % packages
        return None

    def take_over(self, request, keep):
        """Descriptors, session, directory, environment and signals of a new process. @param keep a descriptor to leave open"""
        os.setsid()
        for target, source in enumerate([os.dup(fd) for fd in request.files]):
            os.dup2(source, target)
        for name in os.listdir('/dev/fd'):
            if int(name) > 2 and int(name) != keep:
                try:
                    os.close(int(name))
                except OSError:  # the listing's own
                    pass
        os.chdir(request.cwd)
        os.environ.clear()
        os.environb.update(request.environment)
        time.tzset()
        locale.setlocale(locale.LC_CTYPE, '')
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            wanted = signal.SIG_IGN if number in request.ignored else _HANDLERS.get(number, signal.SIG_DFL)
            if signal.getsignal(number) not in (wanted, None):
                signal.signal(number, wanted)
        # Threads of libraries inherit the mask: a signal that one of them took would not wake the program's own thread.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        self._be_new(request)
        signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)

    def run(self, request):
        """Never returns."""
        status = 0
        interrupted = False
        try:
            _execute(request, sys.modules['__main__'])
        except SystemExit as exit_request:
            status = _exit_status(exit_request)
        except BaseException as error:  # noqa: B036 - what an interpreter does with anything uncaught
            interrupted = isinstance(error, KeyboardInterrupt)
            status = _report(error)
        if _launches_several_hosts(request):
            time.sleep(_LAUNCHER_GRACE_S)
        _finish(status, interrupted)

    def _be_new(self, request):
        for name in self._ours:
            sys.modules.pop(name, None)
        sys.path_importer_cache.pop(_HERE, None)
        main = types.ModuleType('__main__')
        main.__builtins__ = builtins
        main.__annotations__ = {}
        sys.modules['__main__'] = main
        arguments = [os.fsdecode(argument) for argument in request.argv]
        first = {b'script': lambda: os.path.dirname(os.path.realpath(arguments[0])), b'module': os.getcwd, b'command': str}
        head = {b'script': arguments[:1], b'module': ['-m'], b'command': ['-c']}
        sys.argv = head[request.kind] + arguments[1:]
        sys.orig_argv = [sys.executable] + [os.fsdecode(argument) for argument in request.arguments]
        listed = os.environ.get('PYTHONPATH')
        known = [os.path.abspath(entry) for entry in listed.split(':')] if listed else []
        sys.path[:] = [first[request.kind](), *dict.fromkeys(known + self._search_path)]
        _open_streams(request.unbuffered or bool(os.environ.get('PYTHONUNBUFFERED')))
        if hasattr(threading.main_thread(), '_set_native_id'):
            threading.main_thread()._set_native_id()
        _reseed()
        _set_threads(os.environ.get('OMP_NUM_THREADS'))


def _launches_several_hosts(request):
    if request.argv[0] not in (b'torch.distributed.run', b'torch.distributed.launch'):
        return False
    text = b' '.join(request.argv)
    return b'--nnodes' in text and b'--nnodes 1 ' not in text and b'--nnodes=1 ' not in text


def _is_ours(module):
    return os.path.dirname(getattr(module, '__file__', None) or '') == _HERE


def _is_importable(directory, name, module):
    if name == module:
        return os.path.exists('%s/%s/__init__.py' % (directory, name))
    return name in [module + suffix for suffix in importlib.machinery.all_suffixes()]


def _open_streams(unbuffered):
    """sys.stdin, sys.stdout and sys.stderr as the interpreter makes them (create_stdio in CPython's pylifecycle.c)."""
    for fd, name, errors in ((0, 'stdin', 'surrogateescape'), (1, 'stdout', 'surrogateescape'), (2, 'stderr', 'backslashreplace')):
        writes = fd > 0
        try:
            raw = io.FileIO(fd, 'wb' if writes else 'rb', closefd=False)
        except OSError:
            stream = None
        else:
            raw.name = '<%s>' % name
            is_terminal = raw.isatty()
            raw_only = unbuffered and writes
            buffer = raw if raw_only else io.BufferedWriter(raw) if writes else io.BufferedReader(raw)
            stream = io.TextIOWrapper(buffer, 'utf-8', errors, newline='\n' if writes else None, write_through=unbuffered,
                                      line_buffering=not unbuffered and (is_terminal or name == 'stderr'))
            stream.mode = 'w' if writes else 'r'
        setattr(sys, name, stream)
        setattr(sys, '__%s__' % name, stream)


def _reseed():
    """Whatever a fresh process seeds from the system: otherwise all ranks of all jobs would draw the same numbers."""
    random.seed()
    torch = sys.modules.get('torch')
    if torch is not None:
        torch.default_generator.seed()
    numpy_random = sys.modules.get('numpy.random')
    if numpy_random is not None:
        numpy_random.seed()
    processes = sys.modules.get('multiprocessing.process')
    if processes is not None:
        current = processes.current_process()
        current.authkey = os.urandom(32)


def _set_threads(wanted):
    torch = sys.modules.get('torch')
    if torch is not None and wanted:
        torch.set_num_threads(int(wanted))
    # OpenBLAS was loaded with one thread, so that the server has no others.
    count = int(wanted) if wanted else _processors()
    if count > 1 and 'numpy' in sys.modules:
        for path in _loaded_libraries('openblas'):
            library = ctypes.CDLL(path)
            for name in _OPENBLAS_SETTERS:
                if hasattr(library, name):
                    getattr(library, name)(ctypes.c_int(count))
                    break


def _processors():
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _loaded_libraries(word):
    try:
        with open('/proc/self/maps', encoding='utf-8', errors='surrogateescape') as maps:
            paths = {line.split(None, 5)[5].strip() for line in maps if line.count('/')}
    except OSError:
        return []
    return [path for path in paths if word in os.path.basename(path) and os.path.exists(path)]


def _execute(request, main):
    if request.kind == b'module':
        name = os.fsdecode(request.argv[0])
        sys.modules.pop(name, None)  # a module that is run is not also imported
        runpy._run_module_as_main(name)
        return
    if request.kind == b'command':
        main.__loader__ = importlib.machinery.BuiltinImporter
        source, name = os.fsdecode(request.argv[0]), '<string>'
    else:
        script = os.fsdecode(request.argv[0])
        name = script if script.startswith('/') else os.getcwd() + '/' + script
        main.__file__, main.__cached__ = name, None
        main.__loader__ = importlib.machinery.SourceFileLoader('__main__', name)
        with open(script, 'rb') as file:
            source = file.read()
    exec(compile(source, name, 'exec', dont_inherit=True), main.__dict__)


def _exit_status(exit_request):
    code = exit_request.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    try:
        sys.stderr.write('%s\n' % (code,) if not isinstance(code, tuple) else '%s\n' % repr(code))
    except (AttributeError, OSError):
        pass
    return 1


def _report(error):
    """The program's hook or the usual text, without our own frames. @returns the exit status"""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, traceback
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        pass
    second = None
    try:
        sys.excepthook(type(error), error, traceback)
    except SystemExit as exit_request:
        return _exit_status(exit_request)
    except BaseException as failure:  # noqa: B036
        second = failure
    if second is not None:
        second.__context__ = None
        second.__traceback__ = second.__traceback__.tb_next
        sys.stderr.write('Error in sys.excepthook:\n')
        sys.__excepthook__(type(second), second, second.__traceback__)
        sys.stderr.write('\nOriginal exception was:\n')
        sys.__excepthook__(type(error), error, traceback)
    return 1


def _finish(status, interrupted):
    """What Py_FinalizeEx does before it takes the interpreter apart; then the process ends without that."""
    try:
        threading._shutdown()
    except BaseException as error:  # noqa: B036
        sys.unraisablehook(_unraisable(error, threading))
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError) as error:
            if stream is sys.stdout:
                sys.unraisablehook(_unraisable(error, stream))
            status = 120
    _close_files()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


def _unraisable(error, what):
    return types.SimpleNamespace(exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__, err_msg=None, object=what)


def _close_files():
    """Outer layers first: closing a compressed or text file writes its end into the one below."""
    standard = (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)
    spared = {id(layer) for stream in standard if stream is not None for layer in (stream, getattr(stream, 'buffer', None))}
    files = [item for item in gc.get_objects() if isinstance(item, io.IOBase) and id(item) not in spared]
    for kinds in ((io.TextIOBase,), (object,)):
        for item in files:
            if isinstance(item, kinds) and not isinstance(item, io.RawIOBase):
                try:
                    if item.writable() and not item.closed:
                        item.close()
                except Exception:  # noqa: BLE001 - a fresh interpreter ignores it too
                    pass
