"""The script, once on every host."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common.utils import become, script_arguments  # noqa: E402


def main():
    script = os.environ['SM_ENTRY_SCRIPT']
    if script.endswith('.sh'):
        os.chmod(script, 0o755)
        # sh runs a file without a first line `#!` too; "$@" keeps each argument whole.
        become(['/bin/sh', '-c', '"$0" "$@"', './' + script, *script_arguments()])
    become([sys.executable, script, *script_arguments()])


if __name__ == '__main__':
    main()
