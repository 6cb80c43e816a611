"""The fork server: one preloaded interpreter per runtime and user on a machine, forked for each rank. DESIGN.md section 7.

    PYTHON fork_server.py SOCKET CONTROL FINGERPRINT IDLE_SECONDS

Two sockets: SOCKET is for `trainyard-python`, also in hosts; CONTROL is for the service (JSON lines: `status`, `attach`, `shutdown`). It ends
when asked, when no service has been attached for a while, or when idle. It parses nothing that a job sends: each connection is a child's.
"""

import sys

# Before anything else is imported: what every interpreter has loaded when it starts.
_AT_START = frozenset(sys.modules)

import gc
import json
import os
import select
import signal
import socket
import time

import memory

_SERVICE_GRACE_S = 60.0
_MOST_CHILDREN = 1024


def _listen(path):
    """A socket that appears at `path` ready to be connected to; clients wait in its queue until the imports are done."""
    directory, name = os.path.split(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    os.chdir(directory)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = '.%s.%d' % (name, os.getpid())
    listener.bind(temporary)
    os.chmod(temporary, 0o600)
    listener.listen(1024)
    os.rename(temporary, name)
    os.chdir('/')
    return listener


class ForkServer:
    def __init__(self, path, control_path, fingerprint, idle_s):
        self._paths = (path, control_path)
        self._listener = _listen(path)
        self._control = _listen(control_path)
        self._inodes = [os.stat(each).st_ino for each in self._paths]
        self._fingerprint = fingerprint
        self._idle_s = idle_s
        self._controls = {}
        self._attached = set()
        self._children = set()
        self._forks = 0
        self._missing = []
        self._preload_ms = None
        self._is_compact = False
        self._last_use = self._last_service = time.monotonic()

    def preload(self):
        """@raises RuntimeError when the imports left threads or an initialised accelerator: a fork of those is broken."""
        began = time.monotonic()
        # Set while OpenBLAS loads: it would start its threads at once. The forked interpreter sets the number that a fresh one has.
        os.environ['OPENBLAS_NUM_THREADS'] = '1'
        # Without it, a mere question for devices initialises CUDA for this process and all forks of it.
        os.environ['PYTORCH_NVML_BASED_CUDA_CHECK'] = '1'
        import preload
        self._missing = preload.import_all()
        del os.environ['OPENBLAS_NUM_THREADS'], os.environ['PYTORCH_NVML_BASED_CUDA_CHECK']
        if sys.platform.startswith('linux') and len(os.listdir('/proc/self/task')) > 1:
            raise RuntimeError('the imports started %d threads' % (len(os.listdir('/proc/self/task')) - 1))
        torch = sys.modules.get('torch')
        if torch is not None and torch.cuda.is_initialized():
            raise RuntimeError('the imports initialised CUDA')
        self._preload_ms = int((time.monotonic() - began) * 1000)

    def serve(self, interpret):
        """@param interpret what a child does with a connection; never returns"""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._listener.setblocking(False)
        self._control.setblocking(False)
        while not self._is_over():
            poll = select.poll()
            for fd in (wake_read, self._control.fileno(), *self._controls):
                poll.register(fd, select.POLLIN)
            if len(self._children) < _MOST_CHILDREN:
                poll.register(self._listener, select.POLLIN)
            ready = poll.poll(1000 if self._is_compact else 200)
            if not ready and not self._is_compact:
                self._is_compact = True
                memory.use_huge_pages()
            for fd, _ in ready:
                if fd == wake_read:
                    os.read(wake_read, 4096)
                elif fd == self._listener.fileno():
                    self._fork(interpret)
                elif fd == self._control.fileno():
                    self._accept_control()
                elif fd in self._controls:
                    self._answer(fd)
            self._reap()
        for path, inode in zip(self._paths, self._inodes):
            try:
                if os.stat(path).st_ino == inode:  # else a successor has taken the path
                    os.unlink(path)
            except FileNotFoundError:
                pass

    def _fork(self, interpret):
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self._forks += 1
        self._last_use = time.monotonic()
        pid = os.fork()
        if pid:
            self._children.add(pid)
            connection.close()
            return
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for open_here in (self._listener, self._control, *(entry[0] for entry in self._controls.values())):
                open_here.close()  # a copy would keep clients waiting for a server that has ended
            connection.setblocking(True)
            interpret(connection)
        except BaseException:  # noqa: B036 - the copy of the server must never run on
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(70)

    def _reap(self):
        while self._children:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._children.discard(pid)

    def _is_over(self):
        now = time.monotonic()
        if self._attached or self._children:
            self._last_service = now if self._attached else self._last_service
            self._last_use = now if self._children else self._last_use
        return now - self._last_service > _SERVICE_GRACE_S or now - self._last_use > self._idle_s

    def _accept_control(self):
        try:
            connection, _ = self._control.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._controls[connection.fileno()] = [connection, b'']

    def _answer(self, fd):
        connection, buffered = self._controls[fd]
        try:
            data = connection.recv(4096)
        except OSError:
            data = b''
        lines = (buffered + data).split(b'\n')
        self._controls[fd][1] = lines.pop()
        for line in lines:
            if line == b'attach':
                self._attached.add(fd)
            elif line == b'shutdown':
                self._last_service = float('-inf')
                self._attached.clear()
            try:
                connection.send(json.dumps(self._status()).encode() + b'\n')
            except OSError:
                data = b''
        if not data:
            self._attached.discard(fd)
            del self._controls[fd]
            connection.close()

    def _status(self):
        return {'pid': os.getpid(), 'fingerprint': self._fingerprint, 'forks': self._forks, 'running': len(self._children),
                'preloadMs': self._preload_ms, 'missing': self._missing, 'executable': sys.executable}


def main():
    os.closerange(3, 4096)
    path, control_path, fingerprint, idle_s = sys.argv[1:5]
    import forked
    server = ForkServer(path, control_path, fingerprint, float(idle_s))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the jobs' clients
    search_path = sys.path[1:]
    server.preload()
    interpreter = forked.ForkedInterpreter(search_path, _AT_START)
    gc.collect()
    gc.freeze()
    server.serve(interpreter.interpret)
    os._exit(0)


if __name__ == '__main__':
    main()
