"""`python -m serving.prepare.child REFERENCE`: prepare a version and print one JSON report.

The only place of serving where the W&B SDK and the exporter are used; it ends when it is done.
"""

from __future__ import annotations

import argparse
import hashlib
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import msgspec

from registry.config import Settings
from registry.errors import NotFoundError, RegistryError
from registry.reference import ArtifactRef, LocalRef, parse_reference
from registry.selector import Version
from serving.children import claim_stdout, die_with_parent
from serving.prepare.engine import choose_engine
from serving.prepare.plan import Prepared, Refusal, Report

_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A version's bytes on local disk."""

    pinned_name: str
    digest: str
    path: Path
    followed: bool


def prepare(reference: str, *, engine: str, settings: Settings) -> Prepared:
    """Resolve, pull and export `reference`, and choose its engine.

    Raises:
        RegistryError: it cannot be served.
    """
    started = time.monotonic()
    parsed = parse_reference(reference)
    snapshot = _local(parsed) if isinstance(parsed, LocalRef) else _pulled(parsed, settings)
    choice = choose_engine(
        snapshot.path,
        snapshot.digest,
        wanted=engine,
        exports_dir=settings.cache_dir / "exports",
    )
    return Prepared(
        reference=reference,
        pinned_name=snapshot.pinned_name,
        digest=snapshot.digest,
        directory=str(choice.directory),
        task=choice.task,
        engine=choice.engine,
        reason=choice.reason,
        followed=snapshot.followed,
        seconds=time.monotonic() - started,
    )


def _pulled(reference: ArtifactRef, settings: Settings) -> _Snapshot:
    from registry.pull import pull

    pulled = pull(str(reference), settings=settings)
    pinned = isinstance(reference.selector, Version) or reference.digest is not None
    return _Snapshot(pulled.version.qualified_name, pulled.digest, pulled.path, not pinned)


def _local(reference: LocalRef) -> _Snapshot:
    path = Path(reference.path).expanduser().absolute()
    if not path.is_dir():
        raise NotFoundError(f"There is no folder {path}.", hint="Check the path.")
    digest = folder_digest(path)
    # The digest is a part of the name: the same folder may hold another model tomorrow.
    return _Snapshot(f"{path.name}@{digest[:12]}", digest, path, followed=False)


def folder_digest(path: Path) -> str:
    """Return the SHA-256 over the sorted relative paths and SHA-256 of the files beneath `path`."""
    total = hashlib.sha256()
    for file in sorted(found for found in path.rglob("*") if found.is_file()):
        content = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                content.update(chunk)
        total.update(f"{file.relative_to(path).as_posix()}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def _report(reference: str, engine: str) -> Report:
    try:
        settings = Settings.from_environment()
        return Report(prepared=prepare(reference, engine=engine, settings=settings))
    except RegistryError as error:
        return Report(refusal=Refusal(error.code, error.message, error.hint, error.exit_code))
    except Exception as error:
        traceback.print_exc()
        return Report(
            refusal=Refusal(
                code="internal",
                error=f"Preparing failed: {type(error).__name__}: {error}",
                hint="The traceback is in the server's log.",
                exit_code=1,
            )
        )


def main() -> None:
    """Parse, prepare, print the report."""
    parser = argparse.ArgumentParser(prog="serving.prepare.child")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("reference")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    with claim_stdout() as messages:
        report = _report(arguments.reference, arguments.engine)
        messages.write(msgspec.json.encode(report).decode())


if __name__ == "__main__":
    main()
