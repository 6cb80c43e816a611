"""The gang process: starts all hosts of one attempt or none, and stays as long as one of them lives.

    python3 -I -S -E gang.py ATTEMPT_DIRECTORY

reads `gang.json` there (written by the executor), holds `lock`, writes `status.json`. SIGTERM ends the hosts in order;
SIGKILL ends them at once. Exit status: 0 all hosts ended, 1 they could not be started, 75 another gang process has the attempt.
"""

import fcntl
import json
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from status import Status


def main(directory):
    os.closerange(3, 4096)  # whatever the service was started with is none of a job's business
    os.chdir(directory)
    os.umask(0o022)
    lock = os.open('lock', os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 75
    if os.path.exists('status.json'):
        return 0  # an attempt is started once: what is left of an earlier gang process is the executor's to clear
    with open('gang.json', encoding='utf-8') as file:
        plan = json.load(file)
    status = Status(directory, [host['name'] for host in plan['hosts']])
    status.write()
    if status.is_late:
        # Before anything runs, a full disk is a reason not to start.
        print('%s: %s' % (directory, status.problem), file=sys.stderr)
        return 1
    if plan['rung'] == 'processes':
        from plain_gang import PlainGang as Gang
    else:
        from namespace_gang import NamespaceGang as Gang
    gang = Gang(plan, status)
    terminated = []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        gang.start()
    except Exception as error:  # noqa: BLE001 - whatever it is, the executor has to say it
        gang.kill()
        status.write(state='failed', error={'step': getattr(error, 'step', 'start'), 'message': str(error)})
        return 1
    status.write(state='running')
    while gang.living():
        gang.wait(wake_read, 1000 if status.is_late else None)
        if status.is_late:
            status.write()
        if terminated:
            terminated.clear()
            gang.terminate()
    gang.kill()
    status.write(state='ended')
    return 0


if __name__ == '__main__':
    sys.exit(main(os.path.abspath(sys.argv[1])))
