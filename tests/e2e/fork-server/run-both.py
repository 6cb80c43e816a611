"""Runs each scenario with a fresh interpreter and through trainyard-python and writes what each did, as JSON.

    run-both.py SCENARIOS RESULTS TRAINYARD_PYTHON

Both are started alike: no inherited descriptors, the scenario's environment, its files in a new working directory.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time


def run(program, scenario):
    environment = {'PATH': '/usr/bin:/bin', 'HOME': '/root', 'LANG': 'C.UTF-8', 'TRAINYARD_PYTHON': os.environ['TRAINYARD_PYTHON'],
                   'TRAINYARD_PRELOAD': 'explain', **scenario.get('env', {})}
    environment = {name: value for name, value in environment.items() if value is not None}
    # The same path for both: it appears in tracebacks.
    with tempfile.TemporaryDirectory() as parent:
        directory = '/tmp/scenario'
        os.rename(tempfile.mkdtemp(dir=parent), directory)
        try:
            for name, text in scenario.get('files', {}).items():
                os.makedirs(os.path.dirname(directory + '/' + name), exist_ok=True)
                with open(directory + '/' + name, 'w', encoding='utf-8') as file:
                    file.write(text)
            return start(program, scenario, environment, directory)
        finally:
            subprocess.run(['rm', '-rf', directory], check=True)


def start(program, scenario, environment, directory):
    process = subprocess.Popen([program, *scenario['args']], env=environment, cwd=directory, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    if 'signal' in scenario:
        ready = directory + '/ready'
        deadline = time.monotonic() + 60
        while not os.path.exists(ready) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(getattr(signal, scenario['signal']))
    try:
        out, err = process.communicate(scenario.get('stdin', '').encode(), timeout=60)
    except subprocess.TimeoutExpired:
        # One hanging program must not hide what the others did.
        hanging = [open('/proc/%s/cmdline' % pid).read().replace('\0', ' ') for pid in os.listdir('/proc') if pid.isdigit()]
        process.kill()
        out, err = process.communicate()
        return {'status': 'did not end', 'out': out.decode(), 'err': err.decode(), 'files': hanging}
    left = {}
    for name in scenario.get('read', []):
        with open(directory + '/' + name, encoding='utf-8') as file:
            left[name] = file.read()
    return {'status': process.returncode, 'out': out.decode(), 'err': err.decode(), 'files': left}


def main():
    scenarios, results, forked = sys.argv[1:4]
    with open(scenarios, encoding='utf-8') as file:
        wanted = json.load(file)
    answers = {}
    for title, scenario in wanted.items():
        answers[title] = {'fresh': run(os.environ['TRAINYARD_PYTHON'], scenario), 'forked': run(forked, scenario)}
    with open(results + '.tmp', 'w', encoding='utf-8') as file:
        json.dump(answers, file)
    os.replace(results + '.tmp', results)


main()
