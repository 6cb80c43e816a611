export interface Scenario {
  args: string[];
  env?: Record<string, string | null>;
  files?: Record<string, string>;
  stdin?: string;
  /** Sent when the program has made the file `ready`. */
  signal?: string;
  /** Files whose content is compared. */
  read?: string[];
}

const script = (text: string, more: Partial<Scenario> = {}): Scenario => ({
  args: ['x.py'],
  files: { 'x.py': text },
  ...more,
});

/** Programs whose whole visible effect must be the same from a fresh interpreter and from a forked one. */
export const ALIKE: Record<string, Scenario> = {
  'a script prints and ends with 0': script('print("hello", __name__)'),
  'arguments reach the program as they are': script('import sys; print(sys.argv)', {
    args: ['x.py', '-u', '--a=b', '', 'ä b', '-m'],
  }),
  'a relative path of the script': {
    args: ['./d/../x.py'],
    files: { 'x.py': 'import sys; print(__file__, sys.path[0], sys.argv)', 'd/y': '' },
  },
  'a module': {
    args: ['-m', 'pkg.mod', 'a'],
    files: {
      'pkg/__init__.py': '',
      'pkg/mod.py': 'import sys; print(__name__, __spec__.name, __package__, sys.argv[1:], sys.path[0])',
    },
  },
  'a package': {
    args: ['-m', 'pkg'],
    files: { 'pkg/__init__.py': 'print("init")', 'pkg/__main__.py': 'print(__name__, __package__)' },
  },
  'a module that is preloaded': { args: ['-m', 'torch.distributed.run', '--help'] },
  'a command': {
    args: ['-c', 'import sys; print(sys.argv, repr(sys.path[0]), sorted(globals()))', 'a', 'b'],
  },
  'standard input': script('import sys; print([line for line in sys.stdin])', { stdin: 'one\ntwo' }),
  'unbuffered output': script(
    'import sys; sys.stdout.write("a"); sys.stderr.write("b"); print(type(sys.stdout.buffer).__name__)',
    { args: ['-u', 'x.py'] },
  ),
  PYTHONUNBUFFERED: script('import sys; print(type(sys.stdout.buffer).__name__, sys.stdout.write_through)', {
    env: { PYTHONUNBUFFERED: '1' },
  }),
  PYTHONPATH: script('import sys, extra; print(sys.path, extra.__file__)', {
    env: { PYTHONPATH: 'lib:/nonexistent::lib' },
    files: { 'x.py': 'import sys, extra; print(sys.path, extra.__file__)', 'lib/extra.py': '' },
  }),
  'other encodings in the source': script('# -*- coding: latin-1 -*-\nprint(ascii("é"))'),
  'sys.exit(3)': script('import sys; sys.exit(3)'),
  'sys.exit(256 + 5)': script('import sys; sys.exit(261)'),
  'sys.exit(-1)': script('import sys; sys.exit(-1)'),
  'sys.exit(True)': script('import sys; sys.exit(True)'),
  'sys.exit with a text': script('import sys; print("out"); sys.exit("stopped: ä")'),
  'sys.exit with a tuple': script('import sys; sys.exit((1, 2))'),
  'os._exit skips what comes at the end': script(
    'import atexit, os; atexit.register(print, "never"); os._exit(9)',
  ),
  'an uncaught exception': script('def f(x):\n    return 1 / x\n\nf(0)'),
  'a chain of exceptions': script(
    'try:\n    {}["a"]\nexcept KeyError as e:\n    raise ValueError("bad batch") from e',
  ),
  'an exception group': script('raise ExceptionGroup("several", [ValueError(1), TypeError("x")])'),
  'an exception in a module': {
    args: ['-m', 'mod'],
    files: { 'mod.py': 'import sys\nprint(1)\nraise RuntimeError("in a module")' },
  },
  'an exception in a command': { args: ['-c', 'raise RuntimeError("in a command")'] },
  'a syntax error': script('print(1\nx = = 2'),
  'a missing module': { args: ['-m', 'no_such_module'] },
  'a missing import': script('import no_such_module'),
  'an exception hook of the program': script(
    'import sys\nsys.excepthook = lambda *a: print("hook", a[0].__name__)\n1 / 0',
  ),
  'a hook that fails': script(
    'import sys\ndef hook(*a): raise KeyError("hook")\nsys.excepthook = hook\n1 / 0',
  ),
  'KeyboardInterrupt ends by SIGINT': script('raise KeyboardInterrupt'),
  'os.abort ends by SIGABRT': script('import os; os.abort()'),
  'SIGKILL to itself': script('import os, signal; os.kill(os.getpid(), signal.SIGKILL)'),
  'SIGSEGV to itself': script('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)'),
  'exit functions run last to first, after threads are joined': script(
    'import atexit, threading, time\natexit.register(print, "first"); atexit.register(print, "second")\n' +
      'go = threading.Event()\ndef work():\n    go.wait(); time.sleep(0.3); print("thread")\nthreading.Thread(target=work).start()\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\nprint("main"); go.set()',
  ),
  'an exit function that fails': script(
    'import atexit\natexit.register(print, "still")\n@atexit.register\ndef bad():\n    raise ValueError("at exit")',
  ),
  'an exception in a thread': script(
    'import threading\nt = threading.Thread(target=lambda: 1 / 0, name="worker"); t.start(); t.join(); print("on")',
  ),
  'finalizers of the program': script(
    'import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, "finalized")',
  ),
  'files left open are written': script(
    'import gzip\nf = open("out.txt", "w"); f.write("left open")\ng = open("out.bin", "wb"); g.write(b"bytes")\nz = gzip.open("out.gz", "wt"); z.write("packed")\n',
    { read: ['out.txt', 'out.bin'] },
  ),
  'logging at the end': script(
    'import logging\nlogging.basicConfig(filename="log.txt"); logging.warning("kept")',
    { read: ['log.txt'] },
  ),
  'output of a program that closes stdout': script('import sys; print("x"); sys.stdout.close()'),
  'a temporary directory is removed': script(
    'import tempfile, os\nt = tempfile.TemporaryDirectory(dir="."); os.symlink(t.name, "ready"); print(len(os.listdir(".")))',
  ),
  // Those with a handler look again and again: a signal just before one long sleep would wait for its end, forked or not.
  'SIGTERM without a handler': script(
    'import pathlib, time; pathlib.Path("ready").touch(); time.sleep(1000)',
    { signal: 'SIGTERM' },
  ),
  'SIGTERM with a handler': script(
    'import pathlib, signal, sys, time\ndef stop(*a):\n    print("stopping"); sys.exit(42)\nsignal.signal(signal.SIGTERM, stop)\npathlib.Path("ready").touch()\nwhile True: time.sleep(0.05)',
    { signal: 'SIGTERM' },
  ),
  'SIGINT raises KeyboardInterrupt': script(
    'import pathlib, time\ntry:\n    pathlib.Path("ready").touch()\n    while True: time.sleep(0.05)\nexcept KeyboardInterrupt:\n    print("interrupted")',
    { signal: 'SIGINT' },
  ),
  'SIGUSR1 with a handler': script(
    'import pathlib, signal, time\ngot = []\nsignal.signal(signal.SIGUSR1, lambda *a: got.append("usr1"))\npathlib.Path("ready").touch()\nwhile not got: time.sleep(0.05)\nprint(got)',
    { signal: 'SIGUSR1' },
  ),
  subprocesses: script(
    'import subprocess, sys; print(subprocess.run([sys.executable, "-c", "print(2)"], capture_output=True, text=True).stdout, subprocess.getoutput("echo $0 x"))',
  ),
  'exec of another program': script('import os; os.execvp("sh", ["sh", "-c", "echo replaced; exit 5"])'),
  'fork by the program': script(
    'import os\nif os.fork() == 0:\n    print("child"); raise SystemExit(0)\nprint("parent", os.waitstatus_to_exitcode(os.wait()[1]))',
  ),
  'multiprocessing by fork': script(
    'import multiprocessing as m\ndef f(x): return x * x\nif __name__ == "__main__":\n    with m.get_context("fork").Pool(2) as p: print(p.map(f, range(5)))',
  ),
  'multiprocessing by spawn': script(
    'import multiprocessing as m\ndef f(x): return x * x\nif __name__ == "__main__":\n    with m.get_context("spawn").Pool(2) as p: print(p.map(f, range(5)))',
  ),
  asyncio: script(
    'import asyncio\nasync def f():\n    await asyncio.sleep(0.01); return 7\nprint(asyncio.run(f()))',
  ),
  // An exit while a queue's feeder thread is just unlinking its semaphore makes any interpreter warn of a leak now
  // and then (torch never joins these threads), so the program waits for them.
  'a data loader with forked and spawned workers': script(
    [
      'import threading, torch, torch.utils.data as d',
      'class Squares(d.Dataset):',
      '    def __len__(self): return 8',
      '    def __getitem__(self, i): return torch.tensor(float(i)) ** 2',
      'if __name__ == "__main__":',
      '    for context in ("fork", "spawn"):',
      '        print([b.tolist() for b in d.DataLoader(Squares(), batch_size=4, num_workers=2, multiprocessing_context=context)])',
      '    for thread in threading.enumerate():',
      '        if thread is not threading.main_thread(): thread.join(30)',
    ].join('\n'),
  ),
  'numbers of torch and numpy': script(
    'import numpy, torch\ntorch.manual_seed(0); numpy.random.seed(0)\nprint(torch.randn(2, 3) @ torch.randn(3, 2), numpy.random.rand(2) @ numpy.ones((2, 2)))',
  ),
};

/** Programs that only a fresh interpreter runs right: `trainyard-python` has to notice, and say why when asked. */
export const FRESH: Record<string, { scenario: Scenario; reason: RegExp }> = {
  PYTHONHASHSEED: {
    scenario: { args: ['-c', 'print(hash("a"))'], env: { PYTHONHASHSEED: '1' } },
    reason: /PYTHONHASHSEED/,
  },
  PYTHONOPTIMIZE: {
    scenario: { args: ['-c', 'assert 0; print(__debug__)'], env: { PYTHONOPTIMIZE: '1' } },
    reason: /PYTHONOPTIMIZE/,
  },
  PYTHONDEVMODE: {
    scenario: { args: ['-c', 'import sys; print(sys.flags.dev_mode)'], env: { PYTHONDEVMODE: '1' } },
    reason: /PYTHONDEVMODE/,
  },
  MKL_NUM_THREADS: {
    scenario: { args: ['-c', 'print(1)'], env: { MKL_NUM_THREADS: '1' } },
    reason: /MKL_NUM_THREADS/,
  },
  'a list of thread counts': {
    scenario: { args: ['-c', 'print(1)'], env: { OMP_NUM_THREADS: '2,1' } },
    reason: /OMP_NUM_THREADS is 2,1/,
  },
  LD_PRELOAD: {
    scenario: { args: ['-c', 'print(1)'], env: { LD_PRELOAD: '', LD_LIBRARY_PATH: '/nonexistent' } },
    reason: /LD_LIBRARY_PATH/,
  },
  'another locale': {
    scenario: { args: ['-c', 'import sys; print(sys.flags.utf8_mode)'], env: { LANG: 'C' } },
    reason: /the locale is C;/,
  },
  'interpreter options': { scenario: { args: ['-O', '-c', 'print(__debug__)'] }, reason: /option -O/ },
  'isolated mode': {
    scenario: { args: ['-I', '-c', 'import sys; print(sys.flags.isolated)'] },
    reason: /option -I/,
  },
  'a program on standard input': { scenario: { args: [], stdin: 'print("typed")' }, reason: /no program/ },
  'a missing script': { scenario: { args: ['absent.py'] }, reason: /absent\.py/ },
  'the opt-out': { scenario: { args: ['-c', 'print(1)'], env: { TRAINYARD_PRELOAD: '0' } }, reason: /^$/ },
  'a module of the program with the name of a preloaded one': {
    scenario: {
      args: ['x.py'],
      files: { 'x.py': 'import sympy; print(sympy.MINE)', 'sympy.py': 'MINE = True' },
    },
    reason: /sympy\.py comes before the preloaded sympy/,
  },
  'a package on PYTHONPATH in place of a preloaded one': {
    scenario: {
      args: ['-c', 'import numpy; print(numpy.MINE)'],
      env: { PYTHONPATH: 'lib' },
      files: { 'lib/numpy/__init__.py': 'MINE = 1' },
    },
    reason: /numpy comes before the preloaded numpy/,
  },
  'start-up code on PYTHONPATH': {
    scenario: {
      args: ['-c', 'print("then this")'],
      env: { PYTHONPATH: 'lib' },
      files: { 'lib/sitecustomize.py': 'print("first this")' },
    },
    reason: /sitecustomize/,
  },
};
