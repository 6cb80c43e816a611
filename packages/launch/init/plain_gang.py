"""The gang process without namespaces: it forks the inits itself and is the last ancestor of whatever they lose."""

import os
import select
import signal

import children
import host
import host_files
import processes
import spawns
from status import StepFailed, process


class PlainGang:
    def __init__(self, plan, status):
        self._plan = plan
        self._status = status
        self._inits = {}
        self._lifeline_write = None

    def start(self):
        _adopt_orphans()
        lifeline, self._lifeline_write = os.pipe()
        for member in self._plan['hosts']:
            try:
                host_files.prepare(self._plan, member)
                for channel in member['mounts']:
                    os.makedirs(os.path.dirname(channel['target']), exist_ok=True)
                    if not os.path.islink(channel['target']):
                        os.symlink(channel['source'], channel['target'])
            except OSError as error:
                raise StepFailed('host', '%s: %s' % (member['name'], error)) from error
            init = host.Init(member, False, lifeline)
            init.listen()
            pid = children.fork(lambda init=init: _run(init), close=(self._lifeline_write,))
            init.close()
            self._inits[pid] = member['name']
            self._status.host(member['name'], state='running', process=process(pid))

    def living(self):
        return self._inits

    def wait(self, wake, timeout_ms):
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if poll.poll(timeout_ms):
            os.read(wake, 4096)
        gone = self._reap()
        if gone:
            # What a killed init leaves behind is now ours.
            processes.kill_all(lambda: processes.descendants(os.getpid(), set(self._inits)), self._reap)

    def terminate(self):
        for pid in self._inits:
            processes.send(pid, signal.SIGTERM)

    def kill(self):
        processes.kill_all(lambda: processes.descendants(os.getpid()), self._reap)

    def _reap(self):
        gone = False
        for pid, status in children.reap():
            name = self._inits.pop(pid, None)
            if name is not None:
                end = spawns.Spawn(name, pid)
                end.end(status)
                self._status.host(name, state='gone', **end.result())
                self._status.write()
                gone = True
        return gone


def _run(init):
    os.setsid()
    _adopt_orphans()
    init.run()


def _adopt_orphans():
    if processes.LINUX:
        import syscalls
        syscalls.become_subreaper()
