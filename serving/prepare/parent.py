"""Run the preparing child from the server, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from serving.children import end_child, start_child
from serving.prepare.plan import EXIT_UNAVAILABLE, Prepared, PrepareError, Report


async def prepare_in_child(
    reference: str,
    *,
    engine: str,
    environment: Mapping[str, str],
    timeout_s: float,
    task: str | None = None,
    precision: str = "auto",
) -> Prepared:
    """Resolve, pull and export `reference`, and choose its engine.

    Args:
        reference: what to serve.
        engine: `auto`, `onnx`, `openvino` or `torch`.
        environment: of the child.
        timeout_s: for all of it.
        task: what it shall answer; None takes what the version itself says.
        precision: as in `choose_engine`.

    Raises:
        PrepareError: it cannot be served; the message is the registry's own.
    """
    process = await start_child(
        "serving.prepare.child",
        [
            *("--engine", engine, "--precision", precision),
            *(["--task", task] if task else []),
            *("--", reference),
        ],
        environment,
    )
    try:
        async with asyncio.timeout(timeout_s):
            printed, _ = await process.communicate()
    except TimeoutError as error:
        raise PrepareError(
            f"Preparing {reference!r} took longer than {timeout_s:g} s.",
            hint="Run `registry export` on it first, or allow more with --prepare-timeout.",
            code="prepare-timeout",
            exit_code=EXIT_UNAVAILABLE,
        ) from error
    finally:
        await end_child(process)
    return _read(reference, printed, process.returncode)


def _read(reference: str, printed: bytes, status: int | None) -> Prepared:
    try:
        report = msgspec.json.decode(printed, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        report = Report()
    if report.prepared is not None:
        return report.prepared
    if report.refusal is None:
        raise PrepareError(
            f"Preparing {reference!r} ended with status {status} and no result.",
            hint="Its last words are in the server's log; memory may have run out.",
        )
    refusal = report.refusal
    raise PrepareError(
        refusal.error, hint=refusal.hint, code=refusal.code, exit_code=refusal.exit_code
    )
