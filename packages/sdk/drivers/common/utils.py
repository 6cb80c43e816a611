"""Paths, arguments and processes of the drivers."""

import collections
import glob
import json
import os
import signal
import subprocess
import sys
import threading

DRIVERS_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA_DIR = os.path.dirname(DRIVERS_DIR)
INPUT_DIR = os.path.dirname(DATA_DIR)
ML_DIR = os.path.dirname(INPUT_DIR)
OUTPUT_DIR = os.path.join(ML_DIR, 'output')
FAILURE_FILE = os.path.join(OUTPUT_DIR, 'failure')
ENVIRONMENT_FILE = os.path.join(INPUT_DIR, 'sm_training.env')

# A limit of the API: more of the failure file is not kept.
FAILURE_CHARACTERS = 1024
FAILURE_LINES = 20


def on_trainyard():
    """Whether an agent of Trainyard watches this host: it captures failures by rank and knows the other hosts."""
    return 'TRAINYARD_INIT_SOCKET' in os.environ


def read_json(*path):
    """The object in a file of the instance, empty when there is none."""
    try:
        with open(os.path.join(*path), encoding='utf-8') as file:
            return json.load(file) or {}
    except FileNotFoundError:
        return {}


def to_text(value):
    """A string as it is, anything else as JSON: the form of variables and arguments."""
    return value if isinstance(value, str) else json.dumps(value)


def from_text(text):
    """The way back: JSON where the text is JSON."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def script_arguments():
    """`--key value` for each hyperparameter, in their order."""
    arguments = []
    for key, value in json.loads(os.environ['SM_HPS']).items():
        arguments += ['--' + key, to_text(value)]
    return arguments


def processes_per_host():
    """What the job says, else one per GPU, else one per NeuronCore, else one."""
    given = json.loads(os.environ['SM_DISTRIBUTED_CONFIG']).get('process_count_per_node')
    return int(given or 0) or int(os.environ['SM_NUM_GPUS']) or int(os.environ['SM_NUM_NEURONS']) or 1


def has_efa():
    """Whether the host has a network device that needs libfabric's EFA provider."""
    return bool(glob.glob('/dev/infiniband/uverbs*'))


def write_failure(text):
    """Keeps the reason of a failure, unless the script wrote one itself."""
    if os.path.exists(FAILURE_FILE) and os.path.getsize(FAILURE_FILE) > 0:
        return
    os.makedirs(OUTPUT_DIR, exist_ok=True)
    with open(FAILURE_FILE, 'w', encoding='utf-8') as file:
        file.write(text[-FAILURE_CHARACTERS:])


def become(command, environment=None):
    """Runs the command as this process, or, where nobody else captures failures, as its child. Does not return."""
    environment = {**os.environ, **(environment or {})}
    print('Executing command: ' + ' '.join(command), flush=True)
    if on_trainyard():
        os.execvpe(command[0], command, environment)
    sys.exit(run(command, environment))


def run(command, environment):
    """Runs the command, passes on SIGTERM and SIGINT, and keeps the last lines of a failure.
    @returns its exit code, 128 + signal when a signal ended it"""
    tail = collections.deque(maxlen=FAILURE_LINES)
    try:
        child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    except OSError as error:
        write_failure('%s cannot be started: %s' % (command[0], error.strerror))
        raise
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    reader = threading.Thread(target=_copy, args=(child.stderr, tail), daemon=True)
    reader.start()
    status = child.wait()
    # A process that the command left behind may hold the pipe open.
    reader.join(timeout=5)
    code = status if status >= 0 else 128 - status
    if code != 0:
        lines = b''.join(tail).decode('utf-8', 'replace')
        write_failure('%s ended with exit code %d\n%s' % (os.path.basename(command[0]), code, lines))
    return code


def _copy(stream, tail):
    for line in stream:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        tail.append(line)
