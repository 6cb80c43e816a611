"""The gang process where there are namespaces: a job root with the hosts below it, and the door beside it."""

import json
import os
import select
import signal
import socket

import children
import host_files
import job_root
import spawns
import syscalls
from status import StepFailed, process


class NamespaceGang:
    def __init__(self, plan, status):
        self._plan = plan
        self._status = status
        self._root = None
        self._door = None
        self._listeners = []
        self._hosts = {host['name'] for host in plan['hosts']}
        self._control = None
        self._lifeline_write = None

    def start(self):
        self._own_pid_namespace()
        self._plan['visiblePaths'] = list(self._plan['visiblePaths']) + host_files.interpreter_paths()
        for host in self._plan['hosts']:
            host_files.prepare(self._plan, host)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lifeline, self._lifeline_write = os.pipe()
        self._root = children.fork(lambda: job_root.run(self._plan, theirs, lifeline),
                                   close=(self._control.fileno(), self._lifeline_write))
        theirs.close()
        os.close(lifeline)
        self._status.write(root=process(self._root))
        message, self._listeners = self._receive('network')
        self._open_door()
        message, _ = self._receive('hosts')
        machine_pids = self._machine_pids()
        for name, pid in message['ready'].items():
            self._status.host(name, state='running', process=process(machine_pids.get(pid, 0)))

    def living(self):
        return self._hosts

    def wait(self, wake, timeout_ms):
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        for fd, _ in poll.poll(timeout_ms):
            if fd == wake:
                os.read(wake, 4096)
            else:
                self._read_control()
        ended = [pid for pid, _status in children.reap()]
        if self._root in ended:
            self._drain_control()
            self._root = self._door = None
            for name in sorted(self._hosts):
                self._gone(name, signal.SIGKILL)
        elif self._door in ended:
            self._open_door()

    def terminate(self):
        if self._root is not None:
            os.kill(self._root, signal.SIGTERM)

    def kill(self):
        """The door first: it is in the job root's PID namespace, whose first process cannot go before the others are reaped."""
        for pid in (self._door, self._root):
            if pid is not None:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass
        self._root = self._door = None

    def _own_pid_namespace(self):
        flags, uid, gid = syscalls.CLONE_NEWPID, os.geteuid(), os.getegid()
        if self._plan['rung'] == 'user-namespaces':
            flags |= syscalls.CLONE_NEWUSER
        try:
            syscalls.unshare(flags)
            if flags & syscalls.CLONE_NEWUSER:
                for name, text in (('setgroups', 'deny'), ('uid_map', '0 %d 1' % uid), ('gid_map', '0 %d 1' % gid)):
                    with open('/proc/self/' + name, 'w', encoding='ascii') as file:
                        file.write(text)
        except OSError as error:
            raise StepFailed('namespaces', str(error)) from error

    def _open_door(self):
        import door
        keep = [fd for fd in self._listeners if fd is not None]
        self._door = children.fork(lambda: door.run(self._plan, keep), close=(self._control.fileno(), self._lifeline_write))

    def _receive(self, step):
        data, files, _flags, _address = socket.recv_fds(self._control, 1 << 20, 4)
        if not data:
            raise StepFailed(step, 'the job root ended; see outer.log in %s' % self._plan['directory'])
        message = json.loads(data)
        if 'failed' in message:
            raise StepFailed(message['step'], message['failed'])
        return message, files

    def _read_control(self):
        data = self._control.recv(1 << 16)
        if not data:
            return False
        message = json.loads(data)
        self._gone(message['gone'], message['status'])
        return True

    def _drain_control(self):
        self._control.setblocking(False)
        try:
            while self._read_control():
                pass
        except BlockingIOError:
            pass

    def _gone(self, name, status):
        self._hosts.discard(name)
        end = spawns.Spawn(name, 0)
        end.end(status)
        self._status.host(name, state='gone', **end.result())
        self._status.write()

    def _machine_pids(self):
        """Pid of each host's init in the job's namespace → its pid on the machine."""
        found = {}
        for name in os.listdir('/proc'):
            if not name.isdigit():
                continue
            try:
                with open('/proc/%s/status' % name, encoding='utf-8', errors='replace') as file:
                    fields = dict(line.split(':', 1) for line in file if ':' in line)
            except OSError:
                continue
            if int(fields['PPid']) == self._root:
                found[int(fields['NSpid'].split()[-2])] = int(name)
        return found
