"""The agent's side of init: JSON lines on `init.sock`. DESIGN.md section 3 is the contract."""

import errno
import json
import os
import re

import spawns

_LINE_LIMIT_BYTES = 4 << 20
_KEY = re.compile(r'[A-Za-z0-9_.-]{1,64}')


class Refusal(Exception):
    """What a caller did wrong, in one sentence."""


class ControlConnection:
    """One connection of the agent. `wanted` is True while bytes wait to be written."""

    def __init__(self, sock, init):
        sock.setblocking(False)
        self.sock = sock
        self._init = init
        self._in = b''
        self._out = b''
        self._waiting_for = None

    @property
    def wanted(self):
        return bool(self._out)

    def readable(self):
        """False when the connection is over."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if not data:
            return False
        self._in += data
        return self._answer()

    def writable(self):
        try:
            sent = self.sock.send(self._out)
            self._out = self._out[sent:]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def process_ended(self):
        """Called after every death: a held-back `wait` may be answered now."""
        return self._answer()

    def _answer(self):
        while True:
            if self._waiting_for is not None:
                if self._waiting_for.running:
                    break
                self._reply({'ok': True, **self._waiting_for.result()})
                self._waiting_for = None
            line, newline, rest = self._in.partition(b'\n')
            if not newline:
                if len(self._in) > _LINE_LIMIT_BYTES:
                    self._reply({'ok': False, 'error': 'a request is at most %d bytes' % _LINE_LIMIT_BYTES})
                    self.writable()
                    return False
                break
            self._in = rest
            if line.strip():
                self._handle(line)
        return self.writable() if self._out else True

    def _reply(self, value):
        self._out += json.dumps(value).encode() + b'\n'

    def _handle(self, line):
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise Refusal('a request is a JSON object')
            operation = _OPERATIONS.get(request.get('op'))
            if operation is None:
                raise Refusal('op %r is not one of %s' % (request.get('op'), ', '.join(sorted(_OPERATIONS))))
            reply = operation(self, request)
            if reply is not None:
                self._reply({'ok': True, **reply})
        except OSError as error:
            name = errno.errorcode.get(error.errno, 'EIO')
            self._reply({'ok': False, 'error': '%s: %s' % (name, error.strerror or error)})
        except (Refusal, ValueError, TimeoutError) as error:
            self._reply({'ok': False, 'error': str(error)})

    def _known(self, request):
        spawn = self._init.spawns.get(request.get('id'))
        if spawn is None:
            raise Refusal('no process has the id %r; known: %s' % (request.get('id'), ', '.join(self._init.spawns) or 'none'))
        return spawn

    def _spawn(self, request):
        key = request.get('id')
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise Refusal('id %r does not match %s' % (key, _KEY.pattern))
        known = self._init.spawns.get(key)
        if known is not None:
            return {'pid': known.pid, 'startedAt': known.started_at, 'existing': True}
        argv, env = request.get('argv'), request.get('env')
        if not isinstance(argv, list) or not argv or not all(isinstance(part, str) for part in argv):
            raise Refusal('argv must be a list of at least one string')
        if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
            raise Refusal('env must map strings to strings')
        paths = [request.get('cwd'), request.get('stdout'), request.get('stderr')]
        if not all(isinstance(path, str) for path in paths):
            raise Refusal('cwd, stdout and stderr must be paths')
        spawn = self._init.spawn(key, argv, env, *paths)
        return {'pid': spawn.pid, 'startedAt': spawn.started_at}

    def _wait(self, request):
        self._waiting_for = self._known(request)

    def _list(self, _request):
        return {'processes': [spawn.describe() for spawn in self._init.spawns.values()]}

    def _signal(self, request):
        number = spawns.signal_number(request.get('signal'))
        if request.get('id') == '*':
            count = self._init.signal_everyone(number)
            return {'sent': count > 0, 'count': count}
        return {'sent': self._init.signal_group(self._known(request), number)}

    def _environment(self, request):
        env = request.get('env')
        if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
            raise Refusal('env must map strings to strings')
        self._init.shell_environment = {os.fsencode(key): os.fsencode(value) for key, value in env.items()}
        return {}

    def _forget(self, request):
        spawn = self._known(request)
        if spawn.running:
            raise Refusal('process %s (pid %d) still runs' % (spawn.key, spawn.pid))
        del self._init.spawns[spawn.key]
        return {}

    def _shutdown(self, _request):
        self._init.shut_down(exit_code=0, grace_s=1.0)
        return {}

    def _hello(self, _request):
        return {'host': self._init.name, 'pid': os.getpid(), 'agentRestarts': self._init.agent_restarts, 'protocol': 1}


_OPERATIONS = {
    'spawn': ControlConnection._spawn, 'wait': ControlConnection._wait, 'list': ControlConnection._list,
    'signal': ControlConnection._signal, 'environment': ControlConnection._environment,
    'forget': ControlConnection._forget, 'shutdown': ControlConnection._shutdown, 'hello': ControlConnection._hello,
}
