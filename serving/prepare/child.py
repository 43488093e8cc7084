"""`python -m serving.prepare.child REFERENCE`: prepare a version and print one JSON report.

The only place of serving where the W&B SDK and the exporter are used; it ends when it is done.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import msgspec

import registry
from serving.children import claim_stdout, die_with_parent
from serving.prepare.engine import choose_engine
from serving.prepare.plan import Prepared, Refusal, Report

NICENESS = 10
PULLS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A version's bytes on local disk."""

    pinned_name: str
    digest: str
    path: Path
    followed: bool
    known_at: str | None = None
    task: str | None = None


def prepare(
    reference: str,
    *,
    engine: str,
    settings: registry.Settings,
    server_pid: int,
    task: str | None = None,
    precision: str = "auto",
) -> Prepared:
    """Resolve, pull and export `reference`, and choose its engine.

    Args:
        reference: what to serve.
        engine, precision: as in `choose_engine`.
        settings: cache and W&B server.
        server_pid: the process that serves it; what it needs stays in the cache while it lives.
        task: what it shall answer; None takes what its metadata or its architecture says.

    Raises:
        RegistryError: it cannot be served.
    """
    started = time.monotonic()
    snapshot, own = _held(reference, settings)
    choice = choose_engine(
        snapshot.path,
        snapshot.digest,
        wanted=engine,
        precision=precision,
        exports_dir=settings.cache_dir / "exports",
        task=task or snapshot.task,
        cache_dir=settings.cache_dir,
    )
    layout = choice.layout
    lease = _hand_over(own, snapshot, settings, server_pid)
    return Prepared(
        reference=reference,
        pinned_name=snapshot.pinned_name,
        digest=snapshot.digest,
        directory=str(choice.directory),
        task=choice.task,
        engine=choice.engine,
        precision=choice.precision,
        reason=choice.reason,
        followed=snapshot.followed,
        known_at=snapshot.known_at,
        seconds=time.monotonic() - started,
        lease=str(lease.path) if lease else "",
        engine_threads=layout.engine_threads if layout else 0,
        slots=layout.slots if layout else 0,
        max_batch_rows=layout.max_batch_rows if layout else 0,
    )


def _held(reference: str, settings: registry.Settings) -> tuple[_Snapshot, registry.Lease | None]:
    """Pull and take a lease; pull again when a prune was in between.

    The lease is this process's own: a preparation that fails, hangs or is killed holds nothing.
    """
    for _ in range(PULLS):
        snapshot = _snapshot(reference, settings)
        try:
            lease = registry.hold(snapshot.digest, settings=settings)
        except registry.StorageError as error:
            # A cache that cannot be written is not pruned from here either.
            _log.warning("%s is served without a lease: %s", snapshot.pinned_name, error)
            return snapshot, None
        if lease is not None:
            return snapshot, lease
    raise registry.UnavailableError(
        f"{reference} was pruned from the cache as often as it was pulled.",
        hint="Allow the cache more room: registry cache prune --max-size.",
    )


def _hand_over(
    own: registry.Lease | None, snapshot: _Snapshot, settings: registry.Settings, server_pid: int
) -> registry.Lease | None:
    """Return the server's lease; there is none where this process could take none."""
    if own is None:
        return None
    with own:
        return registry.hold(snapshot.digest, settings=settings, pid=server_pid)


def _snapshot(reference: str, settings: registry.Settings) -> _Snapshot:
    parsed = registry.parse_reference(reference)
    pulled = _pull(reference, settings)
    version = pulled.version
    if isinstance(parsed, registry.LocalRef):
        # The digest is a part of the name: the same folder may hold another model tomorrow.
        name = f"{version.collection}@{pulled.digest[:12]}"
        return _Snapshot(name, pulled.digest, pulled.path, followed=False)
    pinned = isinstance(parsed.selector, registry.Version) or parsed.digest is not None
    name = version.qualified_name
    task = registry.task_in(version.metadata)
    return _Snapshot(name, pulled.digest, pulled.path, not pinned, pulled.known_at, task)


def _pull(reference: str, settings: registry.Settings) -> registry.PulledVersion:
    """Pull, or take what the cache knew last when the server does not answer.

    A server that is started while W&B is down serves what it served before; `known_at` says so,
    and following the alias corrects it as soon as W&B answers.
    """
    try:
        return registry.pull(reference, settings=settings)
    except registry.UnavailableError as error:
        if settings.offline:
            raise
        try:
            return registry.pull(reference, settings=dataclasses.replace(settings, offline=True))
        except registry.RegistryError:
            raise error from None


def _report(arguments: argparse.Namespace) -> Report:
    try:
        prepared = prepare(
            arguments.reference,
            engine=arguments.engine,
            precision=arguments.precision,
            task=arguments.task,
            settings=registry.Settings.from_environment(),
            server_pid=arguments.parent,
        )
        return Report(prepared=prepared)
    except registry.RegistryError as error:
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
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--task")
    parser.add_argument("reference")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    # An export takes all cores for seconds; requests to the live version go first.
    os.nice(NICENESS)
    with claim_stdout() as messages:
        report = _report(arguments)
        messages.write(msgspec.json.encode(report).decode())
    # Not a return: with its server away, the SDK's exit handlers can hang for minutes,
    # and all that matters has been said.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
