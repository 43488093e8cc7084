"""An export that came from elsewhere: looked at from all sides before anything serves it.

An `export.json` says what the folder holds, and nobody vouches for it. Its files must be there with
the digests that it names, its graph must be one of ours by its structure, and it must load and
answer its longest input in a process with limits on memory and time.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from registry.errors import ExportError, IntegrityError, RegistryError, UnsafeContentError
from registry.export.candidates import find_candidate, why_unusable
from registry.export.evidence import MODEL_FILE
from registry.export.limits import available_cores
from registry.export.messages import TrialRequest
from registry.export.onnx_content import check_onnx
from registry.export.openvino_model import GRAPH_FILE, WEIGHTS_FILE
from registry.export.process import run_child
from registry.export.seq2seq_run import DECODER_FILE, ENCODER_FILE
from registry.export.store import RECORD, Export, is_intact, read_record
from registry.export.tasks import TASKS

TRIAL_TIMEOUT_S = 180.0
_CHILD = "registry.export.trial_child"
_MEMORY_FLOOR_BYTES = 6 * 2**30
_MEMORY_PER_BYTE = 6
_MAX_RECORD_BYTES = 4 * 2**20
_GRAPHS = (".onnx", ".xml", ".data", ".weights")


def check_export(folder: Path, *, marks_dir: Path | None = None, digest: str = "") -> Export:
    """Return the record of the export in `folder` after checking everything that it says.

    Args:
        folder: a snapshot with an `export.json`.
        marks_dir: where it is noted that a snapshot passed, so that a restart need not load it
            twice; None notes nothing.
        digest: of the snapshot.

    Raises:
        IntegrityError: the record is broken, or a file differs from it.
        UnsafeContentError: it holds what no export of ours does, or does not load within limits.
        ExportError: a newer release made it.
    """
    export = _record(folder)
    mark = marks_dir / f"{digest}-{export.engine}" if marks_dir and digest else None
    if not is_intact(export, verify=mark is None or not mark.is_file()):
        raise IntegrityError(
            f"The files of the export {folder.name} are not those that its {RECORD} names.",
            hint="Pull it again, or push the export again.",
        )
    if mark is not None and mark.is_file():
        return export
    _check_structure(export)
    if not why_unusable(find_candidate(export.engine, export.precision)):
        _try(export)
        if mark is not None:
            with contextlib.suppress(OSError):
                mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                mark.touch()
    return export


def _record(folder: Path) -> Export:
    path = folder / RECORD
    if path.is_file() and path.stat().st_size > _MAX_RECORD_BYTES:
        raise UnsafeContentError(f"{RECORD} is larger than {_MAX_RECORD_BYTES} bytes.")
    export = read_record(folder)
    if export is None:
        raise IntegrityError(
            f"{folder.name} has an {RECORD} that cannot be read.",
            hint="A newer release made it, or it is broken: export and push it again.",
        )
    for file in export.files:
        if "/" in file.name or "\\" in file.name or file.name.startswith("."):
            raise _unvouched(file.name)
    try:
        find_candidate(export.engine, export.precision)
    except RegistryError as error:
        raise ExportError(error.message, hint="Does a newer release serve it?") from error
    if export.task not in TASKS:
        raise ExportError(
            f"The export answers {export.task!r}, which is no task that is known.",
            hint="Does a newer release serve it?",
        )
    if not export.report.passed:
        raise IntegrityError("The export's own report says that its gate refused it.")
    return export


def _check_structure(export: Export) -> None:
    """Check that all graphs are named by the record, and are graphs of ours."""
    named = {file.name for file in export.files}
    graphs = {
        path.relative_to(export.path).as_posix()
        for path in export.path.rglob("*")
        if path.suffix in _GRAPHS
    }
    if graphs - named:
        raise _unvouched(min(graphs - named))
    needed = _needed(export)
    lacking = [name for name in needed if name not in named]
    if lacking:
        raise IntegrityError(f"The export lacks {lacking[0]}.", hint="Push the export again.")
    for name in sorted(graphs):
        if name.endswith(".onnx"):
            check_onnx(export.path / name)


def _unvouched(name: str) -> UnsafeContentError:
    return UnsafeContentError(
        f"The export names or holds {name!r}, for which no {RECORD} of ours would vouch.",
        hint="Push the export again.",
    )


def _needed(export: Export) -> tuple[str, ...]:
    if export.engine == "openvino":
        return (GRAPH_FILE, WEIGHTS_FILE)
    form = TASKS[export.task].form
    if form == "seq2seq":
        return (ENCODER_FILE, DECODER_FILE)
    return (MODEL_FILE,)


def _try(export: Export) -> None:
    """Load the export in a child with limits and have it answer its longest input."""
    threads = available_cores()
    total_bytes = sum(file.size_bytes for file in export.files)
    request = TrialRequest(
        directory=str(export.path.absolute()),
        threads=threads,
        memory_limit_bytes=_MEMORY_FLOOR_BYTES + _MEMORY_PER_BYTE * total_bytes,
        cpu_limit_s=int(TRIAL_TIMEOUT_S) * threads,
        file_limit_bytes=2**20,
    )
    with tempfile.TemporaryDirectory(prefix="runport-trial-") as scratch:
        try:
            run_child(request, scratch_dir=Path(scratch), timeout_s=TRIAL_TIMEOUT_S, module=_CHILD)
        except (ExportError, IntegrityError) as error:
            raise UnsafeContentError(
                f"The export does not load and answer within its limits: {error.message}",
                hint="Export the version that it was made from again: `registry export`.",
            ) from error
