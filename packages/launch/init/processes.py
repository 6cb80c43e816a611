"""What runs in a host and how to end it, with and without a PID namespace of its own."""

import os
import signal
import sys
import time

LINUX = sys.platform.startswith('linux')


def start_time(pid):
    """Clock ticks after boot at which `pid` started, None when it is gone. With the pid it names a process for good."""
    try:
        with open('/proc/%d/stat' % pid, 'rb') as stat:
            return int(stat.read().rpartition(b')')[2].split()[19])
    except (OSError, IndexError):
        return None


def _table():
    """pid → (parent, state) of every process that this process can see."""
    table = {}
    if not LINUX:
        import subprocess
        listing = subprocess.run(['ps', '-axo', 'pid=,ppid=,state='], capture_output=True, text=True, check=False)
        for line in listing.stdout.splitlines():
            pid, parent, state = line.split()
            table[int(pid)] = (int(parent), state[0])
        return table
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open('/proc/%s/stat' % name, 'rb') as stat:
                    fields = stat.read().rpartition(b')')[2].split()
                table[int(name)] = (int(fields[1]), fields[0].decode())
            except (OSError, IndexError):
                pass
    return table


def descendants(root, without=()):
    """Living descendants of `root`, children after parents, leaving out the subtrees named in `without`."""
    children = {}
    for pid, (parent, state) in _table().items():
        if state != 'Z':
            children.setdefault(parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        for child in children.get(queue.pop(0), []):
            if child not in without:
                found.append(child)
                queue.append(child)
    return found


def everyone_else(without=()):
    """Living processes of this PID namespace besides this one, for PID 1."""
    me = os.getpid()
    return [pid for pid, (_, state) in _table().items() if state != 'Z' and pid != me and pid not in without]


def send(pid, number):
    """False when there was nothing to signal."""
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def kill_all(find, reap, patience=10.0):
    """SIGKILL to what `find()` lists, again until it lists nothing, so that a process forking away is caught too.

    @param reap called between rounds, so that the dead leave the table.
    @raises TimeoutError naming what is left after `patience` seconds (uninterruptible system calls).
    """
    killed = set()
    deadline = time.monotonic() + patience
    pause = 0.001
    while True:
        reap()
        left = find()
        if not left:
            return len(killed)
        for pid in left:
            send(pid, signal.SIGKILL)
            killed.add(pid)
        if time.monotonic() > deadline:
            raise TimeoutError('processes %s did not end within %d s of SIGKILL' % (left, patience))
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
