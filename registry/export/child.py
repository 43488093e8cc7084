"""The exporting child, first half: load, answer with torch, convert, write.

`python -m registry.export.child`, fed by `process.run_child`: limits itself before it imports
torch, reads one request from stdin and works in its current directory. When the export is written
it turns into `registry.export.compare` by `exec`: the same process to its parent, but torch and the
weights are gone from memory when ONNX Runtime loads its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from registry.export.channel import claimed_stdout, die_with_parent
from registry.export.confinement import confine, reported
from registry.export.forms import open_form
from registry.export.messages import ChildRequest
from registry.export.source import read_source
from registry.export.tasks import TASKS


def main() -> str | None:
    """Work on one request; return the form of the export to be compared, if there is one."""
    with claimed_stdout() as emit:
        request = msgspec.json.decode(sys.stdin.buffer.readline(), type=ChildRequest)
        die_with_parent()
        confine(request)
        form = TASKS[request.task].form

        def convert() -> None:
            source = read_source(Path(request.model_dir), request.task)
            open_form(form).convert(request, source, emit)

        return form if reported(request, emit, convert) else None


if __name__ == "__main__":
    if form := main():
        # stdin and stdout stay as they are: the second half speaks to the same parent.
        os.execv(  # noqa: S606 - our own module, by absolute interpreter path
            sys.executable, [sys.executable, "-P", "-m", "registry.export.compare", form]
        )
    sys.stderr.flush()
    # Native threads of torch need not be unwound; all that matters was said.
    os._exit(0)
