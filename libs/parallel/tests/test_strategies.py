"""`-m strategy` selects one parity test for each strategy, and no other."""

import subprocess
import sys
from pathlib import Path

from strategies import STRATEGIES


def test_every_strategy_has_its_test():
    tests = Path(__file__).parent
    names = sorted({test.split("::")[0] for test in STRATEGIES.values()})
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "-m", "strategy", *names]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True)
    found = {line.removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line}
    assert found == set(STRATEGIES.values()), done.stdout + done.stderr
