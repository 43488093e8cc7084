"""The exporting child, second half: answer with ONNX Runtime, judge, report. Needs no torch.

`python -m registry.export.compare FORM`, in the directory with the evidence;
`registry.export.child` turns into it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from registry.errors import RegistryError
from registry.export.channel import claimed_stdout, die_with_parent
from registry.export.forms import open_form
from registry.export.messages import Failure


def main(form: str) -> int:
    """Report on the evidence in the current directory, which an export of this form left."""
    with claimed_stdout() as emit:
        die_with_parent()
        try:
            emit(open_form(form).judge(Path.cwd(), emit))
        except RegistryError as error:
            emit(Failure(**error.as_dict()))
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stderr.flush()
    # Native threads of ONNX Runtime need not be unwound; all that matters was said.
    os._exit(status)
