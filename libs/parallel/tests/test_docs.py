"""Every Python program of docs/parallel runs on two ranks."""

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).resolve().parents[3] / "docs/parallel"
PROGRAMS = [
    pytest.param(body, id=f"{page.stem}-{index}")
    for page in sorted(DOCS.glob("*.md"))
    for index, body in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))
]


def execute(rank, program):
    import torch.distributed as dist
    import torch.sagemaker as tsm

    from trainyard_parallel.state import state

    # As in a process that has called nothing yet.
    for group in state._groups.values():
        if group is not dist.group.WORLD:
            dist.destroy_process_group(group)
    state.clear()
    tsm.state.reset()
    torch.set_default_dtype(torch.float32)
    exec(compile(program, "page", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_documentation_runs(worlds, program):
    if "transformers" in program:
        pytest.importorskip("transformers", reason="transformers is not installed")
    worlds(2).run(execute, program)


def test_every_page_is_reached_from_the_first():
    if not DOCS.exists():
        pytest.skip("the documentation is not beside this library; it is in the repository only")
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text()))
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} == linked
