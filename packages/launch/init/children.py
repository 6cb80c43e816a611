"""Forking off a part of the gang process without what belongs to the parent."""

import os
import signal
import sys
import traceback


def fork(body, close=()):
    """Runs `body()` in a child that has none of the parent's signal handlers and never returns from it. @returns its pid.

    @param close descriptors that only the parent may hold, such as the ends of pipes whose closing means something.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for fd in close:
            os.close(fd)
        body()
        os._exit(0)
    except BaseException:  # noqa: B036 - the copy of the parent must never run on
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def reap():
    """[(pid, wait status)] of the children that have ended."""
    ended = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))
