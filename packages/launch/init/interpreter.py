"""trainyard-python: behaves as the runtime's interpreter, `$TRAINYARD_PYTHON`, from a preloaded fork where that makes no difference.

Uses the C parts `_socket` and `_signal`, because importing their wrappers would take longer than the fork.
"""

import os
import select
import sys

import _signal
import _socket
import frames
import start_up

# From `import torch` beginning in the fork server to its end, on a slow disk.
_PATIENCE_S = 90.0
# With TRAINYARD_PRELOAD=ready: one process gains nothing by waiting for imports that it may not even need.
_READY_PATIENCE_S = 0.5
_FORWARDED = tuple(getattr(_signal, name) for name in
                   ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGCONT', 'SIGWINCH') if hasattr(_signal, name))
# Ignored by every Python, so this says nothing about the caller.
_IGNORED_BY_PYTHON = (_signal.SIGPIPE, getattr(_signal, 'SIGXFSZ', None))
_CORE_DUMPING = ('SIGQUIT', 'SIGILL', 'SIGABRT', 'SIGFPE', 'SIGSEGV', 'SIGBUS', 'SIGSYS', 'SIGTRAP', 'SIGXCPU', 'SIGXFSZ')


class Cold(Exception):
    """Why a fresh interpreter has to do it."""


def main():
    interpreter = start_up.environment_at_start().get(b'TRAINYARD_PYTHON')
    if not interpreter:
        sys.stderr.write('trainyard-python: TRAINYARD_PYTHON is not set; it must name the interpreter of the runtime\n')
        raise SystemExit(127)
    arguments = [os.fsencode(argument) for argument in sys.argv[1:]]
    _to_rank_files()
    signals = Signals()
    try:
        lines = _ask(interpreter, arguments, signals)
    except Cold as cold:
        if os.environb.get(b'TRAINYARD_PRELOAD') == b'explain':
            sys.stderr.write('trainyard-python: fresh interpreter: %s\n' % cold)
        signals.give_back()
        _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
        if hasattr(_signal, 'SIGXFSZ'):
            _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
        os.execv(interpreter, [interpreter] + arguments)
    _end_like(signals.forward(lines))


class Signals:
    """What is sent to this process is meant for the program that it stands for. When we are killed, the connection closes and the
    forked interpreter is killed too.

    Numbers come through a pipe that the C handler writes to: a Python handler would not run while the process waits in a read that it
    entered just after the signal."""

    def __init__(self):
        self._old = {}
        self._pipe = None

    def hold(self):
        """From now on signals wait for the program: it may run, and tell others so, before we know."""
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        os.set_blocking(write, False)
        _signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in _FORWARDED:
            if _signal.getsignal(number) != _signal.SIG_IGN:
                self._old[number] = _signal.signal(number, lambda *_: None)

    def give_back(self):
        """For a fresh interpreter in our place: it starts as we did, and what came meanwhile comes again."""
        if self._pipe is None:
            return
        _signal.set_wakeup_fd(-1)
        for number, handler in self._old.items():
            _signal.signal(number, handler)
        for number in self._arrived():
            os.kill(os.getpid(), number)

    def forward(self, lines):
        """Passes signals on until the server has one more line, and returns it; empty when it has gone."""
        while not lines.has_next():
            ready, _, _ = select.select([self._pipe, lines.sock], [], [])
            if self._pipe in ready:
                for number in self._arrived():
                    try:
                        lines.sock.send(b'%d\n' % number)
                    except OSError:
                        pass
            if lines.sock in ready and not lines.fill():
                return b''
        return lines.next()

    def _arrived(self):
        try:
            return os.read(self._pipe, 4096)
        except BlockingIOError:
            return b''


def _to_rank_files():
    """torchrun takes one program as interpreter, so what `trainyard-rank` does for others is done here for its ranks."""
    rank, logs = os.environb.get(b'RANK'), os.environb.get(b'TRAINYARD_RANK_LOGS')
    if not rank or not logs:
        return
    sys.stdout.flush()
    for target, ending in ((1, b'.out'), (2, b'.err')):
        fd = os.open(logs + b'/rank-' + rank + ending, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(fd, target)
        os.close(fd)


def _ask(interpreter, arguments, signals):
    """What the server says of a forked interpreter that runs `arguments`. @raises Cold"""
    environment = os.environb
    if environment.get(b'TRAINYARD_PRELOAD') == b'0':
        raise Cold('TRAINYARD_PRELOAD is 0')
    command_line = start_up.parse(arguments)
    reason = command_line if isinstance(command_line, str) else start_up.cold_reason(environment)
    if reason:
        raise Cold(reason)
    unbuffered, kind, first = command_line
    if kind == b'script':
        _check_script(arguments[first])
    extra = [fd for fd in map(int, os.listdir('/dev/fd')) if fd > 2 and _is_inherited(fd)]
    if extra:
        raise Cold('descriptors %s are inherited' % extra)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    # The program lies in <run directory>/bin.
    path = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0]))) + '/fork.sock'
    ignored = [number for number in _signal.valid_signals()
               if number not in _IGNORED_BY_PYTHON and _signal.getsignal(number) == _signal.SIG_IGN]
    try:
        sock.settimeout(_READY_PATIENCE_S if environment.get(b'TRAINYARD_PRELOAD') == b'ready' else _PATIENCE_S)
        sock.connect(path)
        _send_request(sock, [
            b'1', interpreter, b'unbuffered' if unbuffered else b'', kind, os.getcwdb(),
            b','.join(b'%d' % number for number in ignored), b','.join(b'%d' % number for number in _blocked()),
            b'%d' % len(arguments), b'%d' % first, *arguments, *(key + b'=' + value for key, value in environment.items())])
        lines = Lines(sock)
        reply = lines.next()
        if reply.startswith(b'nonce '):
            signals.hold()
            sock.sendall(reply + b'\n')
            reply = lines.next()
    except OSError as error:
        raise Cold('the fork server cannot be asked: %s' % error) from error
    if not reply.startswith(b'pid '):
        raise Cold((reply[len(b'cold '):] or b'the fork server ended').decode('utf-8', 'replace'))
    sock.settimeout(None)
    return lines


def _check_script(path):
    try:
        with open(path, 'rb') as file:
            magic = file.read(4)
    except OSError as error:
        raise Cold('%s is for a fresh interpreter to report' % error) from error
    if path.endswith(b'.pyc') or magic.startswith(b'PK'):
        raise Cold('compiled and zipped programs are for a fresh interpreter')


def _is_inherited(fd):
    try:
        return os.get_inheritable(fd)
    except OSError:  # the directory listing's own
        return False


def _blocked():
    return sorted(int(number) for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, ()))


def _send_request(sock, fields):
    message = frames.pack(fields)
    descriptors = b''.join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
    sent = sock.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
    while sent < len(message):
        sent += sock.send(message[sent:])


class Lines:
    """What a socket says, by lines; several may arrive at once."""

    def __init__(self, sock):
        self.sock = sock
        self._data = b''

    def has_next(self):
        return b'\n' in self._data

    def fill(self):
        """Reads some more; False at the end."""
        data = self.sock.recv(4096)
        self._data += data
        return bool(data)

    def next(self):
        """The next line, empty when the server has gone."""
        while not self.has_next():
            if not self.fill():
                return b''
        line, _, self._data = self._data.partition(b'\n')
        return line


def _end_like(last):
    kind, _, value = last.partition(b' ')
    if kind == b'exit':
        os._exit(int(value))
    if kind != b'signal':
        sys.stderr.write('trainyard-python: the fork server lost the process\n')
        os._exit(255)
    number = int(value)
    if any(getattr(_signal, name, None) == number for name in _CORE_DUMPING):
        import resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number != _signal.SIGKILL:
        _signal.set_wakeup_fd(-1)
        _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))
    os.kill(os.getpid(), number)
    os._exit(128 + number)
