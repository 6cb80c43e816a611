"""Prints all that a program can ask its interpreter and its process about how they were started."""

import atexit
import gc
import json
import locale
import os
import resource
import signal
import sys
import threading
import time

report = {}
report['main'] = {
    name: type(value).__name__ if name in ('__builtins__', '__loader__') else str(value).split(' object at ')[0]
    for name, value in list(globals().items()) if name.startswith('__')
}
report['is main'] = sys.modules['__main__'].__dict__ is globals()
report['argv'] = [sys.argv, sys.orig_argv]
report['path'] = sys.path
report['flags'] = repr(sys.flags)
report['options'] = [sys.warnoptions, sys._xoptions, sys.dont_write_bytecode, sys.executable, sys.prefix, sys.base_prefix, sys.platlibdir]
report['limits'] = [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold(), sys.get_int_max_str_digits()]
report['environment'] = dict(sorted(os.environ.items()))
report['directory'] = [os.getcwd(), oct(os.umask(0o022))]
report['user'] = [os.getuid(), os.geteuid(), os.getgid(), os.getgroups()]
report['status'] = [line.split() for line in open('/proc/self/status')
                    if line.startswith(('Cap', 'NoNewPrivs', 'Seccomp', 'SigBlk', 'SigIgn', 'Umask', 'Cpus_allowed_list'))]
report['namespaces'] = {name: os.readlink('/proc/self/ns/' + name) for name in ('mnt', 'net', 'pid', 'uts', 'ipc', 'user')}
report['resources'] = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith('RLIMIT_')}
report['handlers'] = {number.name: str(signal.getsignal(number)) for number in signal.Signals if 'built-in' not in str(signal.getsignal(number))}
report['interrupt'] = signal.getsignal(signal.SIGINT) is signal.default_int_handler
report['mask'] = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
report['locale'] = [locale.setlocale(category) for category in (locale.LC_CTYPE, locale.LC_NUMERIC, locale.LC_TIME)]
report['encodings'] = [locale.getpreferredencoding(), sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), time.tzname]
report['streams'] = [
    [stream.name, stream.mode, stream.encoding, stream.errors, stream.newlines, stream.line_buffering, stream.write_through,
     type(stream.buffer).__name__, stream.fileno(), stream is getattr(sys, '__%s__' % stream.name.strip('<>'))]
    for stream in (sys.stdin, sys.stdout, sys.stderr)
]
report['descriptors'] = sorted(int(name) for name in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + name))
report['threads'] = [[thread.name, thread.daemon, thread.native_id == threading.get_native_id()] for thread in threading.enumerate()]
report['hooks'] = [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__, sys.gettrace(), sys.getprofile()]
report['session'] = [os.getsid(0) == os.getpgrp(), os.getpid() > 1]
report['modules of ours'] = [name for name in ('fresh', 'forked', 'frames', 'fork_server', 'start_up', 'memory', 'processes', 'preload', 'syscalls') if name in sys.modules]

import multiprocessing
import random
import uuid

import numpy
import torch

report['process'] = [multiprocessing.current_process().name, multiprocessing.parent_process(), multiprocessing.get_start_method()]
report['torch'] = [torch.get_num_threads(), torch.get_num_interop_threads(),
                   torch.get_default_dtype().__repr__(), torch.is_grad_enabled(), torch.cuda.is_initialized()]


def blas_threads():
    import ctypes
    for line in open('/proc/self/maps'):
        if 'openblas' in line:
            library = ctypes.CDLL(line.split(None, 5)[5].strip())
            for name in ('scipy_openblas_get_num_threads64_', 'openblas_get_num_threads64_', 'openblas_get_num_threads'):
                if hasattr(library, name):
                    return getattr(library, name)()
    return None


report['blas'] = blas_threads()
seeds = {
    'torch seed': torch.initial_seed(), 'torch': torch.rand(1).item(), 'random': random.random(), 'numpy': numpy.random.rand(), 'uuid': str(uuid.uuid4()),
    'authkey': bytes(multiprocessing.current_process().authkey).hex(), 'generator': numpy.random.default_rng().random(),
}
atexit.register(print, 'at exit')
print(json.dumps({'report': report, 'seeds': seeds}))
