"""Init's side of `trainyard-rsh`: runs a command of another host's process with that process's own descriptors."""

import os
import socket

import frames


class ShellConnection:
    """One remote command. The caller may go away: PRRTE's daemons detach, so the command stays."""

    wanted = False

    def __init__(self, sock, init):
        sock.setblocking(False)
        self.sock = sock
        self._init = init
        self._message = frames.Incoming()
        self._files = []
        self._spawn = None

    def readable(self):
        """False when the connection is over."""
        if self._spawn is not None:
            return False  # the only thing a caller says after its request is that it has gone
        try:
            data, files, _flags, _address = socket.recv_fds(self.sock, 1 << 18, 3)
            self._files += files
            if not data:
                return self._over()
            self._message.feed(data)
            if self._message.fields is not None:
                self._start(self._message.fields)
        except BlockingIOError:
            pass
        except ConnectionError:
            return self._over()
        except (OSError, ValueError) as error:
            return self._over(b'error %s\n' % str(error).encode())
        return True

    def process_ended(self):
        if self._spawn is None or self._spawn.running:
            return True
        code = 128 + self._spawn.signal if self._spawn.signal is not None else self._spawn.exit_code
        return self._over(b'exit %d\n' % code)

    def _start(self, fields):
        command, caller_environment = fields[0], frames.split_environment(fields[1:])
        env = self._init.shell_environment
        if env is None:
            env = caller_environment
        env = {**env, b'TRAINYARD_INIT_SOCKET': os.fsencode(self._init.socket_path)}
        if len(self._files) != 3:
            raise ValueError('a remote command needs stdin, stdout and stderr, got %d descriptors' % len(self._files))
        home = env.get(b'HOME', b'/')
        home = home if os.path.isdir(home) else b'/'
        self._spawn = self._init.start(None, ['/bin/sh', '-c', command], env, home, self._files)
        self._close_files()

    def _over(self, reply=None):
        self._close_files()
        if reply is not None:
            try:
                self.sock.send(reply)
            except OSError:
                pass
        return False

    def _close_files(self):
        for fd in self._files:
            os.close(fd)
        self._files = []
