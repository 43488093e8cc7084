"""`registry serve`: answer predictions over HTTP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from registry.cli.units import parse_size
from registry.config import Settings
from registry.errors import UsageError
from registry.reference import LocalRef, parse_reference
from registry.references.allowed import parse_allowed

if TYPE_CHECKING:
    from serving.config import CoreLimits

_LEAST_CACHE_BYTES = 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@click.command("serve", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("deployments", nargs=-1, required=True, metavar="NAME=REF...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "onnx", "openvino", "torch"]),
    default="auto",
    show_default=True,
    help="auto: what `registry tune` chose, else ONNX Runtime where an export is within "
    "tolerance, else torch.",
)
@click.option(
    "--precision",
    metavar="PRECISION",
    default="auto",
    show_default=True,
    help="fp32, int8-dynamic, int8-static (onnx), bf16, int8 (openvino); auto is fp32.",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME=TASK",
    help="What a deployment answers; default: as its metadata or architecture says.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Engine threads of each model [as tuned, else all cores].",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Inputs waiting at each model, at most; more are answered 429.",
)
@click.option(
    "--cache-memory",
    "cache_bytes",
    type=parse_size,
    metavar="SIZE",
    default="2GiB",
    show_default=True,
    help="Memory in which the answers of each model that generates text grow.",
)
@click.option(
    "--request-timeout",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="Seconds from a complete request to its answer.",
)
@click.option(
    "--load-timeout", "load_timeout_s", type=click.FloatRange(1), default=180.0, show_default=True
)
@click.option(
    "--prepare-timeout",
    "prepare_timeout_s",
    type=click.FloatRange(1),
    default=1800.0,
    show_default=True,
)
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds that requests in flight are given at a stop or a swap.",
)
@click.option(
    "--follow-interval",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="Seconds between two looks at the aliases; 0 follows none.",
)
@click.option(
    "--report/--no-report", default=True, show_default=True, help="Inference metrics to W&B."
)
@click.option(
    "--report-window",
    "report_window_s",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="Seconds of one window of metrics.",
)
@click.option(
    "--base",
    "bases",
    multiple=True,
    metavar="[NAME=]REF",
    help="Base model of the PEFT adapter NAME, or of all; default: what each records.",
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
@click.option("--offline", is_flag=True, help="No network: what is in the cache must do.")
@click.option(
    "--api-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Hashed keys, made by `registry key`; needed for any other than a loopback address.",
)
@click.option("--allowed-host", multiple=True, help="A further name that Host may have.")
def command(
    deployments: tuple[str, ...],
    host: str,
    port: int,
    engine: str,
    precision: str,
    tasks: tuple[str, ...],
    threads: int | None,
    max_queue: int,
    cache_bytes: int,
    request_timeout: float,
    follow_interval: float,
    report: bool,
    bases: tuple[str, ...],
    allow_references: tuple[str, ...],
    allow_pickle: bool,
    offline: bool,
    api_key_file: Path | None,
    allowed_host: tuple[str, ...],
    **times_s: Any,
) -> int:
    """Serve versions under names: `registry serve bert=run-bert:best other=./export`.

    An alias in REF is followed: when it moves, the new version is loaded beside the old one and
    takes over without a failed request. `:v3` or a folder stays what it is.
    """
    pairs = parse_deployments(deployments)
    named = parse_tasks(tasks, {name for name, _ in pairs})
    base, own_bases = parse_bases(bases, {name for name, _ in pairs})
    check_precision(engine, precision)
    from serving.config import HttpLimits, ServeConfig
    from serving.server import serve

    settings = Settings.from_environment()
    offline = offline or settings.offline
    return serve(
        ServeConfig(
            deployments=pairs,
            cache_dir=settings.cache_dir,
            data_dir=settings.data_dir,
            host=host,
            port=port,
            tasks=named,
            bases=own_bases,
            engine=engine,
            precision=precision,
            core=core_limits(threads, max_queue, cache_bytes),
            tuned_threads=threads is None,
            http=HttpLimits(request_timeout_s=request_timeout),
            follow_interval_s=0.0 if offline else follow_interval,
            report=report and not offline,
            api_keys=api_key_file,
            allowed_hosts=allowed_host,
            environment=_child_environment(
                base, offline=offline, allow_pickle=allow_pickle, allow_references=allow_references
            ),
            **times_s,
        )
    )


def core_limits(threads: int | None, max_queue: int, cache_bytes: int) -> CoreLimits:
    """Return the limits of each model's worker; None takes a thread for each core.

    Raises:
        UsageError: no answer could grow in so little memory.
    """
    from serving.config import CoreLimits, available_cores

    if cache_bytes < _LEAST_CACHE_BYTES:
        raise UsageError(
            f"--cache-memory is {cache_bytes} bytes, less than 1 MiB.",
            hint="Write a size with its unit, for example --cache-memory 4GiB.",
        )
    slots = threads or available_cores()
    return CoreLimits(slots=slots, max_queue=max_queue, cache_bytes=cache_bytes)


def _child_environment(
    base: str | None, *, offline: bool, allow_pickle: bool, allow_references: tuple[str, ...]
) -> dict[str, str]:
    """Return the environment of the processes that pull, export and report."""
    from serving.config import process_environment

    said = {"RUNPORT_OFFLINE": "1"} if offline else {}
    if base is not None:
        said["RUNPORT_BASE"] = base
    if allow_pickle:
        said["RUNPORT_ALLOW_PICKLE"] = "1"
    if allow_references:
        parse_allowed(allow_references)
        known = Settings.from_environment().allow_references
        said["RUNPORT_ALLOW_REFERENCES"] = " ".join((*known, *allow_references))
    return {**process_environment(), **said}


def parse_tasks(texts: tuple[str, ...], deployments: set[str]) -> dict[str, str]:
    """Return tasks by deployment name.

    Raises:
        UsageError: one is no `NAME=TASK`, or names what is not there.
    """
    from registry.export import TASKS

    tasks = {}
    for text in texts:
        name, _, task = text.partition("=")
        if name not in deployments:
            raise UsageError(f"{name!r} is no deployment.", hint="Write --task NAME=TASK.")
        if task not in TASKS:
            raise UsageError(
                f"{task!r} is no task that is known.", hint=f"Tasks: {', '.join(sorted(TASKS))}."
            )
        tasks[name] = task
    return tasks


def check_precision(engine: str, precision: str) -> None:
    """Raise UsageError if there is no such engine with such a precision."""
    from registry.export import find_candidate

    if engine != "torch" and (engine, precision) != ("auto", "auto"):
        find_candidate(engine, precision)


def parse_bases(texts: tuple[str, ...], deployments: set[str]) -> tuple[str | None, dict[str, str]]:
    """Return the base model of all adapters, and those of single deployments by their names.

    Raises:
        UsageError: one is given twice, or for what is not there.
        InvalidReferenceError: one is no reference.
    """
    bases: dict[str | None, str] = {}
    for text in texts:
        name, equals, reference = text.partition("=")
        own = bool(equals and _NAME.match(name))
        if own and name not in deployments:
            raise UsageError(f"{name!r} is no deployment.", hint="Write --base NAME=REF.")
        key = name if own else None
        if key in bases:
            raise UsageError(
                f"There are two base models for {name if own else 'all deployments'}.",
                hint="Write --base NAME=REF for each deployment that has its own.",
            )
        bases[key] = _base_anywhere(reference if own else text)
    return bases.pop(None, None), {name: base for name, base in bases.items() if name}


def _base_anywhere(base: str) -> str:
    # It is read by processes in other folders, where a relative path would mean another one.
    local = isinstance(parse_reference(base), LocalRef)
    return str(Path(base).expanduser().absolute()) if local else base


def parse_deployments(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return pairs of name and reference.

    Raises:
        UsageError: a text is not NAME=REF, or a name stands twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, reference = text.partition("=")
        if not (equals and reference and _NAME.match(name)):
            raise UsageError(
                f"{text!r} is not NAME=REF.", hint="For example: registry serve bert=run-bert:best"
            )
        if name in pairs:
            raise UsageError(
                f"The name {name!r} stands twice.", hint="Give each deployment a name of its own."
            )
        pairs[name] = reference
    return tuple(pairs.items())
