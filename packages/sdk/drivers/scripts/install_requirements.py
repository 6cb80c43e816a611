"""Installs the packages of a requirements file that are not there yet."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common.utils import ENVIRONMENT_FILE, INPUT_DIR, on_trainyard, write_failure  # noqa: E402

LAYER_DIR = os.path.join(INPUT_DIR, 'sm_packages')
PIP = [sys.executable, '-m', 'pip', 'install', '--disable-pip-version-check', '--no-input']


def pip(*arguments):
    """@raises SystemExit with pip's exit code, its words kept as the reason."""
    done = subprocess.run([*PIP, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        words = done.stderr.decode('utf-8', 'replace')
        sys.stderr.write(words)
        write_failure('The requirements could not be installed: ' + words)
        sys.exit(done.returncode)
    return done.stdout.decode('utf-8')


def missing(requirements):
    """What pip would install, as requirements of one version each."""
    report = json.loads(pip('--dry-run', '--quiet', '--report', '-', '-r', requirements))
    for item in report['install']:
        metadata = item['metadata']
        address = item['download_info']['url']
        yield '%s @ %s' % (metadata['name'], address) if item.get('is_direct') else '%s==%s' % (
            metadata['name'],
            metadata['version'],
        )


def install_layer(requirements):
    """The interpreter belongs to other jobs as well, so packages of this one go into a folder of its own."""
    packages = list(missing(requirements))
    if not packages:
        return
    print('Installing ' + ', '.join(packages), flush=True)
    pip('--no-deps', '--target', LAYER_DIR, *packages)
    with open(ENVIRONMENT_FILE, 'a', encoding='utf-8') as file:
        file.write("export PYTHONPATH='%s'\"${PYTHONPATH:+:$PYTHONPATH}\"\n" % LAYER_DIR)
        file.write("export PATH='%s/bin'\":$PATH\"\n" % LAYER_DIR)


def main():
    requirements = sys.argv[1]
    if not os.path.isfile(requirements):
        write_failure('The code has no file %s.' % requirements)
        sys.exit('The code has no file %s.' % requirements)
    if on_trainyard():
        install_layer(requirements)
    else:
        print(pip('-r', requirements), flush=True)


if __name__ == '__main__':
    main()
