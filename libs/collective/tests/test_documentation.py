"""The table of variables in README.md is complete: it names what the code reads, and nothing else."""

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
OURS = r"TRAINYARD_COLLECTIVE_[A-Z_]+"


def test_every_variable_is_documented():
    sources = [
        path
        for folder in ("csrc", "trainyard_collective", "smdistributed")
        for path in (PROJECT / folder).rglob("*.*")
        if path.suffix in (".cc", ".h", ".py")
    ]
    read = {name for path in sources for name in re.findall(rf'"({OURS})"', path.read_text())}
    table = (PROJECT / "README.md").read_text().split("## Environment")[1].split("\n## ")[0]
    documented = {name for name in re.findall(rf"^\| `({OURS})`", table, re.M)}
    assert read == documented
