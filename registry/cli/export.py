"""`registry export`: a version made fast, with proof that it answers the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, quiet_option, result, result_json, say

if TYPE_CHECKING:
    from registry.config import Settings
    from registry.export import Export
    from registry.pulled import PulledVersion
    from registry.push import Pushed


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the options say; named as they are."""

    task: str | None
    base: str | None
    allow_references: tuple[str, ...]
    allow_pickle: bool
    engine: str
    precision: str
    samples: str | None
    tolerance: float | None
    min_agreement: float | None
    timeout_s: float | None
    force: bool

    def settings(self, usual: Settings) -> Settings:
        """Return the settings with what is allowed this time."""
        return replace(
            usual,
            allow_pickle=self.allow_pickle or usual.allow_pickle,
            allow_references=(*usual.allow_references, *self.allow_references),
        )


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.option("--task", help="What the model answers; default: as metadata or architecture say.")
@click.option(
    "--base",
    metavar="REF",
    help="Base model of a PEFT adapter: an artifact or a folder; default: what it records.",
)
@click.option(
    "--allow-reference",
    "allow_references",
    multiple=True,
    metavar="PLACE",
    help="Follow references into s3://bucket/prefix, https://host/path or file:///folder.",
)
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Convert pickled weights (.bin, .pt, .pth, .ckpt) to safetensors; nothing of them is run.",
)
@click.option(
    "--engine",
    metavar="ENGINE",
    default="auto",
    show_default=True,
    help="What shall run it: onnx or openvino.",
)
@click.option(
    "--precision",
    metavar="PRECISION",
    default="auto",
    show_default=True,
    help="fp32, int8-dynamic or int8-static (onnx); fp32, bf16 or int8 (openvino).",
)
@click.option(
    "--samples",
    metavar="FILE|REF",
    help="Texts, as JSON lines or an artifact of them, to calibrate and judge int8 and bf16 on.",
)
@click.option(
    "--tolerance",
    type=float,
    metavar="DIFF",
    help="Largest difference of a logit that is accepted.  [default: 1e-4; int8 and bf16: 1]",
)
@click.option(
    "--min-agreement",
    type=float,
    metavar="SHARE",
    help="Smallest share of labels that int8 and bf16 must have as fp32.  [default: 0.99]",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Stop the exporter after this long.  [default: 900]",
)
@click.option("--force", is_flag=True, help="Export again, even if it was done or refused before.")
@click.option(
    "--push", "push_it", is_flag=True, help="Log the export as NAME-onnx, with what it came from."
)
@json_option
@quiet_option
def command(name: str, push_it: bool, as_json: bool, quiet: bool, **wishes: Any) -> None:
    """Export a version and compare it with torch; print the export's path.

    NAME is as for `registry pull`: an artifact's name or a local folder (`./model`). An export
    that differs by more than the tolerance is not kept (exit status 6), only its report is.
    A PEFT adapter is merged into its base model first. Other engines and precisions than ONNX in
    fp32 are derived from that export and compared with it.
    """
    from registry.cache import hold
    from registry.config import Settings
    from registry.export import push_export
    from registry.pull import pull

    asked = _Wishes(**wishes)
    with json_errors(as_json):
        settings = asked.settings(Settings.from_environment())
        pulled = pull(name, settings=settings, base=asked.base)
        stages: list[str] = []

        def progress(stage: str) -> None:
            stages.append(stage)
            say(f"{pulled.version.short_name}: {stage}", quiet=quiet)

        # A prune meanwhile leaves alone what is being read.
        with hold(pulled.digest, settings=settings) or nullcontext():
            export = _export(pulled, asked, settings, progress)
            pushed = push_export(export, pulled, settings=settings) if push_it else None
    if as_json:
        result_json(_document(pulled, export, pushed, cached=not stages))
        return
    for line in describe(pulled, export, pushed, cached=not stages):
        say(line, quiet=quiet)
    result(str(export.path))


def _export(
    pulled: PulledVersion, asked: _Wishes, settings: Settings, progress: Callable[[str], None]
) -> Export:
    from registry.export import (
        DEFAULT_TIMEOUT_S,
        export_model,
        find_candidate,
        find_samples,
        task_in,
    )

    candidate = find_candidate(asked.engine, asked.precision)
    return export_model(
        pulled.path,
        digest=pulled.digest,
        exports_dir=settings.cache_dir / "exports",
        task=asked.task or task_in(pulled.version.metadata),
        engine=candidate.engine,
        precision=candidate.precision,
        samples=find_samples(asked.samples, settings=settings) if asked.samples else None,
        tolerance=asked.tolerance,
        min_agreement=asked.min_agreement,
        timeout_s=DEFAULT_TIMEOUT_S if asked.timeout_s is None else asked.timeout_s,
        force=asked.force,
        progress=progress,
    )


def describe(
    pulled: PulledVersion, export: Export, pushed: Pushed | None, *, cached: bool
) -> list[str]:
    """Say in words what was exported, how it compares, and what was pushed."""
    how = (
        "from the cache"
        if cached
        else f"{export.seconds:.1f} s, peak memory {export.peak_memory_bytes / 1e6:.0f} MB"
    )
    merged = f", merged into {pulled.base.version.qualified_name}" if pulled.base else ""
    return [
        f"{pulled.version.qualified_name}{merged}  "
        f"{export.task} {export.engine} {export.precision}, {how}",
        export.report.summary(),
        *([f"{'pushed' if pushed.created else 'was there'}: {pushed.name}"] if pushed else []),
    ]


def _document(
    pulled: PulledVersion, export: Export, pushed: Pushed | None, *, cached: bool
) -> dict[str, Any]:
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(export, enc_hook=str)
    logged = {"name": pushed.name, "created": pushed.created} if pushed else None
    name = pulled.version.qualified_name
    return {"name": name, "cached": cached, "pushed": logged, **document}
