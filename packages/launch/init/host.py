"""Init: the first process of a host. DESIGN.md sections 3 and 4 are its contract."""

import os
import resource
import select
import signal
import socket
import time

import processes
import spawns
from control_socket import ControlConnection
from remote_shell import ShellConnection

if processes.LINUX:
    import syscalls

# A container's usual set without the ones that reach beyond it (bit numbers of linux/capability.h): CHOWN,
# DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT. Without NET_RAW too:
# a packet socket would show the script the agent's requests, and in them the token.
JOB_CAPABILITIES = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18))

# AUDIT_WRITE, which init and agent have and nothing else in a host. It is of no use to them; but the kernel opens memory,
# environment and descriptors of a process only to one that has all of its capabilities, and so to no script, although
# that runs as the same user. Chosen because it does next to nothing and container engines give it.
GUARD_CAPABILITY = 1 << 29

_FIRST_RESTART_S, _LAST_RESTART_S, _STEADY_S = 0.2, 5.0, 60.0
_TERM_GRACE_S = 1.5


class Init:
    """State and event loop of one host.

    @param host the host's member of the gang plan, with `paths` as seen from inside.
    @param lifeline descriptor that reaches end of file when the gang process is gone.
    """

    def __init__(self, host, owns_namespace, lifeline):
        self.name = host['name']
        self.socket_path = host['inside']['runDir'] + '/init.sock'
        self.shell_environment = None
        self.spawns = {}
        self.agent_restarts = -1
        self._host = host
        self._owns_namespace = owns_namespace
        self._lifeline = lifeline
        self._agent_input = _content(host['agent']['stdin'])
        self._by_pid = {}
        self._has_news = False
        self._connections = {}
        self._agent = None
        self._agent_delay_s = 0.0
        self._agent_due = time.monotonic()
        self._ending = None
        self._listeners = {}
        self._state = None
        self._wake_read, self._wake_write = os.pipe()

    def listen(self):
        """Opens both sockets; called while the machine's paths are still visible. Binding a relative name keeps the
        path below the 108 bytes of a socket address."""
        for directory, name, kind in ((self._host['runDir'], 'init.sock', ControlConnection),
                                      (self._host['peersDir'], self.name + '.sock', ShellConnection)):
            os.chdir(directory)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                os.unlink(name)
            except FileNotFoundError:
                pass
            listener.bind(name)
            os.chmod(name, 0o600)
            listener.listen(64)
            listener.setblocking(False)
            self._listeners[listener.fileno()] = (listener, kind)
        os.chdir('/')

    def keep_state(self):
        """Takes hold of a directory for the agent's state that has no place in the host: only descriptors lead to it, and those
        of init and agent are closed to scripts. Called while the machine's paths are still visible."""
        directory = self._host['directory'] + '/agent'
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._state = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self):
        """For the parent of a forked init: gives back the descriptors that only the child needs."""
        for listener, _ in self._listeners.values():
            listener.close()
        if self._state is not None:
            os.close(self._state)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def run(self):
        """Never returns: ends in os._exit."""
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.shut_down(143, _TERM_GRACE_S))
        while True:
            self._reap()
            self._tell_of_ends()
            self._tend_agent()
            self._tend_end()
            self._serve(self._pause_ms())

    def spawn(self, key, argv, env, cwd, stdout, stderr):
        env = {**env, 'TRAINYARD_INIT_SOCKET': self.socket_path}
        nothing = os.open('/dev/null', os.O_RDONLY)
        try:
            self.spawns[key] = self.start(key, argv, env, cwd, [nothing, stdout, stderr])
        finally:
            os.close(nothing)
        return self.spawns[key]

    def start(self, key, argv, env, cwd, files):
        """`spawns.start` with the rights of the job, and from then on looked after."""
        spawn = spawns.start(key, argv, env, cwd, files, _confine if self._owns_namespace else None)
        self._by_pid[spawn.pid] = spawn
        return spawn

    def signal_group(self, spawn, number):
        """The leader may have ended while its group lives on; the number stays taken until the group is empty."""
        try:
            os.killpg(spawn.pid, number)
            return True
        except ProcessLookupError:
            return False

    def signal_everyone(self, number):
        if number == signal.SIGKILL:
            return processes.kill_all(self._others, self._reap)
        return sum(processes.send(pid, number) for pid in self._others())

    def shut_down(self, exit_code, grace_s):
        """SIGTERM to everything now, SIGKILL after `grace_s`, then the end; the first call decides."""
        if self._ending is None:
            self._ending = (exit_code, time.monotonic() + grace_s)
            for pid in self._others(with_agent=True):
                processes.send(pid, signal.SIGTERM)

    def _others(self, with_agent=False):
        """What descends from this host; the agent with its helpers only on request."""
        spared = set()
        if self._agent is not None and not with_agent:
            spared = {self._agent.pid, *processes.descendants(self._agent.pid)}
        if self._owns_namespace:
            return processes.everyone_else(spared)
        return processes.descendants(os.getpid(), spared)

    def _reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._agent is not None and pid == self._agent.pid:
                self._agent_ended(status)
            spawn = self._by_pid.pop(pid, None)
            if spawn is not None:
                spawn.end(status)
                self._has_news = True

    def _tell_of_ends(self):
        """Not while reaping: that also happens within a request, whose connection must not take up its next one."""
        if self._has_news:
            self._has_news = False
            for connection in list(self._connections.values()):
                if not connection.process_ended():
                    self._drop(connection)

    def _tend_agent(self):
        if self._agent is not None or self._ending is not None or time.monotonic() < self._agent_due:
            return
        self.agent_restarts += 1
        log = self._open_agent_log()
        env = {**self._host['agent']['env'], 'TRAINYARD_INIT_SOCKET': self.socket_path}
        prepare = _forbid_core_dumps if self._owns_namespace else None
        kept = []
        if self._state is not None:
            kept = [self._state]
            env['TRAINYARD_AGENT_STATE'] = '/proc/self/fd/3'
        try:
            with self._agent_stdin() as stdin:
                files = [stdin.fileno(), log, log, *kept]
                self._agent = spawns.start('agent', self._host['agent']['argv'], env, '/', files, prepare)
        except OSError as error:
            os.write(log, ('init: %s\n' % error.strerror).encode())
            self._schedule_agent(0.0)
        finally:
            os.close(log)

    def _open_agent_log(self):
        # A script can put a link there, and init can write where a script cannot.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        try:
            return os.open(self._host['inside']['runDir'] + '/agent.log', flags, 0o600)
        except OSError:  # that link, or a full disk: the agent matters more than its log
            return os.open('/dev/null', os.O_WRONLY)

    def _agent_stdin(self):
        """What the agent has to know, to be read once: a file, or a descriptor that can be read again, is there for others too."""
        if self._agent_input is None:
            return open('/dev/null', 'rb')
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours:
            ours.setblocking(False)  # it fits into the buffer; if it ever did not, init must not wait
            ours.sendall(self._agent_input)
        return theirs

    def _agent_ended(self, status):
        lived_s = (spawns.now_ms() - self._agent.started_at) / 1000
        self._agent = None
        if status == 0:
            self.shut_down(0, 0.0)
        else:
            self._schedule_agent(lived_s)

    def _schedule_agent(self, lived_s):
        steady = lived_s >= _STEADY_S or self._agent_delay_s == 0.0
        self._agent_delay_s = _FIRST_RESTART_S if steady else min(self._agent_delay_s * 2, _LAST_RESTART_S)
        self._agent_due = time.monotonic() + self._agent_delay_s

    def _tend_end(self):
        if self._ending is None:
            return
        exit_code, deadline = self._ending
        left = self._others(with_agent=True)
        if left and time.monotonic() < deadline:
            return
        try:
            processes.kill_all(lambda: self._others(with_agent=True), self._reap)
        except TimeoutError:
            exit_code = exit_code or 1
        for connection in list(self._connections.values()):
            self._drop(connection)
        os._exit(exit_code)

    def _pause_ms(self):
        if self._ending is not None:
            return 20
        if self._agent is None:
            return max(0, int((self._agent_due - time.monotonic()) * 1000) + 1)
        return None

    def _serve(self, timeout_ms):
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(self._lifeline, 0)
        for fd in self._listeners:
            poll.register(fd, select.POLLIN)
        for fd, connection in self._connections.items():
            poll.register(fd, select.POLLIN | (select.POLLOUT if connection.wanted else 0))
        for fd, event in poll.poll(timeout_ms):
            if fd == self._wake_read:
                os.read(fd, 4096)
            elif fd == self._lifeline:
                self._ending = (1, 0.0)  # the gang process was killed, so nobody would end this host
            elif fd in self._listeners:
                self._accept(*self._listeners[fd])
            elif fd in self._connections:
                connection = self._connections[fd]
                alive = not event & select.POLLOUT or connection.writable()
                if alive and event & ~select.POLLOUT:
                    alive = connection.readable()
                if not alive:
                    self._drop(connection)

    def _accept(self, listener, kind):
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        self._connections[sock.fileno()] = kind(sock, self)

    def _drop(self, connection):
        self._connections.pop(connection.sock.fileno(), None)
        connection.sock.close()


def _content(path):
    if path is None:
        return None
    with open(path, 'rb') as file:
        return file.read()


def _confine():
    syscalls.limit_capabilities(JOB_CAPABILITIES)


def _forbid_core_dumps():
    """A script may signal the agent, and a core would show its memory. Of 0 bytes would still go to a program that the machine
    names for cores; of 1 goes nowhere. Raising the hard limit again takes a capability that no script has."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
