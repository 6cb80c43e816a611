"""What the gang process tells the executor: the file `status.json` of the attempt, replaced as a whole on each change."""

import json
import os

import processes


def boot_id():
    """Names this boot of the machine, so that a pid and its start time are never compared across boots."""
    try:
        with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
            return file.read().strip()
    except OSError:
        return None


def process(pid):
    return {'pid': pid, 'startTime': processes.start_time(pid)}


class Status:
    """`state` is starting, running, ended, or failed (with `error`: the step and what the machine said)."""

    def __init__(self, directory, host_names):
        self._path = directory + '/status.json'
        self.is_late = False
        self.problem = None
        self.value = {
            'state': 'starting', 'error': None, 'bootId': boot_id(), 'gang': process(os.getpid()), 'root': None,
            'hosts': {name: {'state': 'starting', 'process': None, 'exitCode': None, 'signal': None, 'endedAt': None}
                      for name in host_names},
        }

    def write(self, **changes):
        """A full disk must not end the hosts: `is_late` is True while the file is behind, and writing again makes it good."""
        self.value.update(changes)
        temporary = self._path + '.tmp'
        try:
            with open(temporary, 'w', encoding='utf-8') as file:
                json.dump(self.value, file)
            os.replace(temporary, self._path)
            self.is_late = False
        except OSError as error:
            self.is_late = True
            self.problem = error

    def host(self, name, **changes):
        self.value['hosts'][name].update(changes)


class StepFailed(Exception):
    """A step of starting the hosts failed; `step` names it."""

    def __init__(self, step, message):
        super().__init__(message)
        self.step = step
