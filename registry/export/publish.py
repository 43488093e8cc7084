"""An export back to W&B, as `<collection>-onnx`, with lineage to what it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from registry.errors import UsageError
from registry.export.store import Export
from registry.push import Facts, Pushed, push

if TYPE_CHECKING:
    from registry.config import Settings
    from registry.hub import Hub
    from registry.pulled import PulledVersion

SUFFIX = "-onnx"
JOB_TYPE = "export"
_FOLDER = "local"
# The version that a folder of this machine has in the cache.


def push_export(
    export: Export,
    source: PulledVersion,
    *,
    settings: Settings | None = None,
    hub: Hub | None = None,
) -> Pushed:
    """Log the export's files as a version that a machine without torch can pull and serve.

    The same bytes are logged once: a second push names the version that has them. The version gets
    the alias `<engine>-<precision>`, such as `onnx-fp32`, beside `latest`.

    Args:
        export: made from `source`.
        source: the pulled version; the run that logs the export has it as its input.
        settings: default: from the environment.
        hub: default: W&B through its SDK.

    Raises:
        UsageError: the source is a folder, and no version of a collection.
        AuthError, UnavailableError: the server.
    """
    version = source.version
    if version.version == _FOLDER:
        raise UsageError(
            f"{version.collection} is a folder: its export has no collection to belong to.",
            hint="Push the folder first: registry push FOLDER NAME.",
        )
    collection = version.collection.removesuffix(SUFFIX) + SUFFIX
    return push(
        export.path,
        f"{version.entity}/{version.project}/{collection}",
        Facts(
            aliases=(f"{export.engine}-{export.precision}",),
            metadata=describe_export(export, source),
            description=f"{export.engine} {export.precision} export of {version.qualified_name}",
            made_from=version.qualified_name,
            job_type=JOB_TYPE,
        ),
        settings=settings,
        hub=hub,
    )


def describe_export(export: Export, source: PulledVersion) -> dict[str, Any]:
    """Return the metadata of a pushed export: what it is, and how it compared."""
    report: dict[str, Any] = msgspec.to_builtins(export.report)
    kept = (
        "passed", "tolerance", "allowed_abs_diff", "max_abs_diff", "max_batched_abs_diff",
        "max_invariance_abs_diff", "percentiles", "label_agreement", "batched_label_agreement",
        "inputs", "samples", "reference", "min_agreement", "budget_agreement", "budget_inputs",
    )  # fmt: skip
    return {
        "task": export.task,
        "precision": export.precision,
        "engine": export.engine,
        "max_tokens": export.max_tokens,
        "architecture": export.architecture,
        "tools": report["tools"],
        "hardware": report["hardware"],
        "parity": {name: report[name] for name in kept},
        "source": source.version.qualified_name,
        "source_digest": source.version.digest,
        "source_snapshot": export.digest,
    }
