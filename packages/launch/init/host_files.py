"""Directories of a host on the machine's disk and the three programs in its `bin/`."""

import os
import shlex
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))

_RANK = '''#!/bin/sh
# trainyard-rank CMD...: the output of a rank goes to files of its own, so that its order is kept and its rank known.
rank=${RANK-${OMPI_COMM_WORLD_RANK-${PMIX_RANK-${PMI_RANK-}}}}
if [ -n "$rank" ] && [ -n "$TRAINYARD_RANK_LOGS" ]; then
  exec "$@" >>"$TRAINYARD_RANK_LOGS/rank-$rank.out" 2>>"$TRAINYARD_RANK_LOGS/rank-$rank.err"
fi
exec "$@"
'''


def prepare(plan, host):
    """Makes what `host` needs before it starts; may be repeated."""
    run = host['runDir']
    places = [host['mlDir'], run, run + '/state', run + '/bin', plan['peersDir'], host['directory'] + '/home']
    if plan['rung'] != 'processes':
        places += [run + '/peers', run + '/fork']
        places += [host['directory'] + '/' + name for name in ('root', 'tmp', 'vartmp')]
    for place in places:
        os.makedirs(place, mode=0o755, exist_ok=True)
    os.chmod(host['directory'] + '/home', 0o700)
    if plan['rung'] != 'processes':
        os.chmod(host['directory'] + '/tmp', 0o1777)
        os.chmod(host['directory'] + '/vartmp', 0o1777)
    else:
        _link(plan['peersDir'], run + '/peers')
    if plan['forkDir']:
        _link('fork/fork.sock' if plan['rung'] != 'processes' else plan['forkDir'] + '/fork.sock', run + '/fork.sock')
    _write_program(run + '/bin/trainyard-rsh', _python('rsh'))
    _write_program(run + '/bin/trainyard-python', _python('interpreter'))
    _write_program(run + '/bin/trainyard-rank', _RANK)


def interpreter_paths():
    """What a host must see for the programs in `bin/`: this directory and the Python that runs it."""
    return [_HERE, os.path.realpath(sys.executable), sys.prefix, sys.base_prefix]


def _python(module):
    """A program that runs `main` of a module of this directory."""
    interpreter = os.path.realpath(sys.executable)
    if len(interpreter) < 120 and not set(interpreter) & set(' \t'):
        # A kernel takes at most 127 bytes and one argument here; a shell in between would cost a millisecond.
        first = '#!%s -ISE' % interpreter
    else:
        first = '#!/bin/sh\n""":"\nexec %s -ISE "$0" "$@"\n":"""' % shlex.quote(interpreter)
    return '%s\nimport sys\nsys.path.insert(0, %r)\nimport %s\n%s.main()\n' % (first, _HERE, module, module)


def _write_program(path, text):
    temporary = path + '.tmp'
    with open(temporary, 'w', encoding='utf-8') as file:
        file.write(text)
    os.chmod(temporary, 0o755)
    os.replace(temporary, path)


def _link(target, path):
    if os.path.islink(path) and os.readlink(path) == target:
        return
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(target, path)
