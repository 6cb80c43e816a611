"""A child of the fork server: enters the caller's host, forks once more, and is a Python interpreter there.

The caller is whoever holds the connection, and the child gets exactly its identity: namespaces, capabilities, limits, working directory,
descriptors. So a caller can start nothing that it could not have started by itself. Anything unusual is answered `cold …`.
"""

import os
import resource
import select
import signal
import socket
import struct
import sys

import frames
import fresh
import processes
import start_up

if processes.LINUX:
    import syscalls

_NAMESPACES = ('user', 'mnt', 'uts', 'ipc', 'net', 'pid', 'cgroup', 'time')
_REQUEST_PATIENCE_S = 20.0


class Cold(Exception):
    """Why a fresh interpreter has to do it."""


class Request:
    """What `trainyard-python` sent."""

    def __init__(self, fields, files):
        version, self.executable, unbuffered, self.kind, self.cwd, ignored, blocked, count, first = fields[:9]
        if version != b'1' or len(files) != 3:
            raise Cold('the request has version %r and %d descriptors' % (version, len(files)))
        self.unbuffered = unbuffered == b'unbuffered'
        self.ignored = [int(number) for number in ignored.split(b',') if number]
        self.blocked = [int(number) for number in blocked.split(b',') if number]
        self.arguments = fields[9:9 + int(count)]
        self.argv = self.arguments[int(first):]
        self.environment = frames.split_environment(fields[9 + int(count):])
        self.files = files
        if not self.argv or self.kind not in (b'script', b'module', b'command'):
            raise Cold('the request has no program')


class ForkedInterpreter:
    """Parameters as of `fresh.FreshInterpreter`."""

    def __init__(self, search_path, at_start):
        self._fresh = fresh.FreshInterpreter(search_path, at_start)

    def interpret(self, connection):
        """Runs one request; never returns."""
        try:
            request, peer = self._receive(connection)
            reason = start_up.cold_reason(request.environment)
            if reason or request.executable != os.fsencode(sys.executable):
                raise Cold(reason or 'it preloads %s, not %s' % (sys.executable, os.fsdecode(request.executable)))
            pid, report = self._start(request, peer, connection)
        except (Cold, OSError, ValueError) as error:
            connection.sendall(b'cold %s\n' % str(error).replace('\n', ' ').encode())
            os._exit(0)
        answer = os.read(report, 4096)
        os.close(report)
        if answer != b'ready':
            os.waitpid(pid, 0)
            connection.sendall((answer or b'cold the forked interpreter ended') + b'\n')
            os._exit(0)
        connection.sendall(b'pid %d\n' % pid)
        _attend(connection, pid)

    def _receive(self, connection):
        connection.settimeout(_REQUEST_PATIENCE_S)
        message, files = frames.Incoming(), []
        while message.fields is None:
            data, more, _flags, _address = socket.recv_fds(connection, 1 << 18, 3)
            files += more
            if not data:
                os._exit(0)
            message.feed(data)
        if len(message.fields) < 10:
            raise Cold('the request has %d fields' % len(message.fields))
        request = Request(message.fields, files)
        peer = Peer(connection) if processes.LINUX else None
        connection.settimeout(None)
        return request, peer

    def _start(self, request, peer, connection):
        report, report_write = os.pipe()
        if peer is not None:
            peer.enter()
        pid = os.fork()
        if pid:
            os.close(report_write)
            for fd in request.files:
                os.close(fd)
            try:
                if peer is not None:
                    peer.leave_only_signals()
            except OSError:
                os.kill(pid, signal.SIGKILL)  # or the program would run twice
                raise
            return pid, report
        try:
            connection.close()
            os.close(report)
            if peer is not None:
                peer.become()
            # Known only here: what lies in the caller's directories may shadow what is loaded.
            reason = self._fresh.shadowed(request)
            if reason:
                raise Cold(reason)
            self._fresh.take_over(request, report_write)
        except Exception as error:  # noqa: BLE001 - the caller decides for a fresh interpreter, whatever it is
            os.write(report_write, b'cold %s' % str(error).replace('\n', ' ').encode()[:4000])
            os._exit(0)
        os.write(report_write, b'ready')
        os.close(report_write)
        self._fresh.run(request)


class Peer:
    """The process at the other end, pinned so that its number cannot come to mean another. @raises Cold"""

    def __init__(self, connection):
        pid, uid, gid = struct.unpack('3i', connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        self._pidfd = os.pidfd_open(pid)
        # The kernel stamps the number of the *sending* process on each message. An answer to a word chosen after the descriptor was
        # opened, stamped with the same number, from a process that still lives, was sent by the process behind the descriptor.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        word = b'nonce %s\n' % os.urandom(8).hex().encode()
        connection.sendall(word)
        data, ancillary, _flags, _address = connection.recvmsg(4096, socket.CMSG_SPACE(12))
        stamps = [struct.unpack('3i', value)[0] for _level, kind, value in ancillary if kind == socket.SCM_CREDENTIALS]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        self._status = _status_of(pid)
        self._namespaces = {name: _read_link(pid, name) for name in _NAMESPACES}
        self._limits = {limit: resource.prlimit(pid, limit) for limit in _LIMITS}
        self._oom = _read(pid, 'oom_score_adj')
        unlike = self._unlike(pid, uid, gid)
        if data != word or stamps != [pid] or select.select([self._pidfd], [], [], 0)[0]:
            raise Cold('the caller is not the process that connected')
        if unlike:
            raise Cold(unlike)

    def _unlike(self, pid, uid, gid):
        """What of the caller's circumstances a child of ours could not have."""
        mine = _status_of(os.getpid())
        if self._status['CapEff'] != self._status['CapPrm']:
            return 'the caller has dropped capabilities for a while'
        if self._status['Uid'] != mine['Uid'] or self._status['Gid'] != mine['Gid'] or (uid, gid) != (os.geteuid(), os.getegid()):
            return 'the caller runs as another user'
        for name in ('Groups', 'Seccomp', 'Cpus_allowed'):
            if self._status.get(name) != mine.get(name):
                return 'the caller has another %s' % name
        for name in ('cgroup', 'attr/current'):
            if _read(pid, name) != _read(os.getpid(), name):
                return 'the caller has another %s' % name
        if os.getpriority(os.PRIO_PROCESS, pid) != os.getpriority(os.PRIO_PROCESS, 0):
            return 'the caller has another priority'
        for name in ('cgroup', 'time'):
            if self._namespaces[name] != _read_link(os.getpid(), name):
                return 'the caller has another %s namespace' % name
        return None

    def enter(self):
        flags = {'user': syscalls.CLONE_NEWUSER, 'mnt': syscalls.CLONE_NEWNS, 'uts': syscalls.CLONE_NEWUTS,
                 'ipc': syscalls.CLONE_NEWIPC, 'net': syscalls.CLONE_NEWNET, 'pid': syscalls.CLONE_NEWPID}
        wanted = 0
        for name, flag in flags.items():
            if self._namespaces[name] != _read_link(os.getpid(), name):
                wanted |= flag
        if wanted:
            syscalls.setns(self._pidfd, wanted)
        os.close(self._pidfd)

    @staticmethod
    def leave_only_signals():
        """For the parent, which from now on does no more than signal the interpreter."""
        syscalls.limit_capabilities(1 << 5, -1)  # KILL; the bounding set says nothing, because it runs no other program

    def become(self):
        """Limits and privileges of the caller."""
        syscalls.die_with_parent(signal.SIGKILL)
        os.umask(int(self._status['Umask'], 8))
        for limit, value in self._limits.items():
            if resource.getrlimit(limit) != value:
                resource.setrlimit(limit, value)
        if _read(os.getpid(), 'oom_score_adj') != self._oom:
            with open('/proc/self/oom_score_adj', 'wb') as file:
                file.write(self._oom)
        if int(self._status['NoNewPrivs']):
            syscalls.forbid_new_privileges()
        syscalls.limit_capabilities(int(self._status['CapPrm'], 16), int(self._status['CapBnd'], 16))
        if _status_of(os.getpid())['CapPrm'] != self._status['CapPrm']:
            raise Cold('the capabilities of the caller cannot be taken on')
        syscalls.set_dumpable(1)


_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith('RLIMIT_') and name != 'RLIMIT_OFILE']


def _status_of(pid):
    with open('/proc/%d/status' % pid, encoding='utf-8', errors='replace') as file:
        return {line.split(':', 1)[0]: line.split(':', 1)[1].strip() for line in file if ':' in line}


def _read(pid, name):
    try:
        with open('/proc/%d/%s' % (pid, name), 'rb') as file:
            return file.read()
    except OSError:
        return None


def _read_link(pid, name):
    try:
        return os.readlink('/proc/%d/ns/%s' % (pid, name))
    except FileNotFoundError:
        return None


def _attend(connection, pid):
    """Passes the caller's signals on, kills the interpreter when the caller goes away, and tells how it ended."""
    child = os.pidfd_open(pid) if hasattr(os, 'pidfd_open') else None
    buffered = b''
    while True:
        watched = [connection] if child is None else [connection, child]
        ready, _, _ = select.select(watched, [], [], None if child is not None else 0.02)
        if connection in ready:
            try:
                data = connection.recv(4096)
            except OSError:
                data = b''
            if not data:
                _kill_group(pid)
                os.waitpid(pid, 0)
                os._exit(0)
            *numbers, buffered = (buffered + data).split(b'\n')
            for number in numbers:
                processes.send(pid, int(number))
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            end = b'signal %d\n' % os.WTERMSIG(status) if os.WIFSIGNALED(status) else b'exit %d\n' % os.WEXITSTATUS(status)
            try:
                connection.sendall(end)
            except OSError:
                pass
            os._exit(0)


def _kill_group(pid):
    """A fresh interpreter's workers would be in the group that its launcher kills."""
    for kill, target in ((os.killpg, pid), (os.kill, pid)):
        try:
            kill(target, signal.SIGKILL)
        except ProcessLookupError:
            pass
