"""W&B runs for streams; the only module of `serving` that imports wandb.

The SDK buffers and uploads on its own; the server's answer about the last
stored step is asked for through the public API, never assumed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb

from serving.telemetry.reporter.delivery import ReportError
from serving.telemetry.reporter.watchdog import Watchdog
from serving.telemetry.reports import Stream, WindowClosed

_API_TIMEOUT_S = 15
_MAX_TAG_CHARACTERS = 64
_MAX_HISTOGRAM_BINS = 512

_SETTINGS: dict[str, Any] = {
    "mode": "online",
    "silent": True,
    "console": "off",
    "disable_git": True,
    "save_code": False,
    # Bounds that hold against a server that is down or hangs.
    "init_timeout": 30.0,
    "finish_timeout": 20.0,
    "finish_timeout_raises": True,
    "x_graphql_retry_max": 2,
    "x_graphql_timeout_seconds": 10.0,
    "x_file_stream_retry_wait_max_seconds": 10.0,
    "x_file_stream_timeout_seconds": 20.0,
    # The run is about a service: neither this process's machine use nor its files say anything.
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    # The spool is what is durable; a second log of everything would grow without bound.
    "x_skip_transaction_log": True,
}


class WandbRuns:
    """Opens W&B runs for streams.

    Args:
        directory: where the SDK may keep its files.
        transmit_s: whole seconds between the SDK's transmissions, at least 1.
        watchdog: bounds every call of the SDK, whatever its version promises.
    """

    def __init__(self, directory: Path, *, transmit_s: int, watchdog: Watchdog) -> None:
        self._directory = directory
        self._transmit_s = transmit_s
        self._watchdog = watchdog

    def open(self, stream: Stream) -> WandbRun:
        """Open the stream's run, or resume it, with the version it serves as its input.

        Raises:
            ReportError: W&B did not answer as it should.
        """
        with self._watchdog.limit():
            try:
                api = wandb.Api(timeout=_API_TIMEOUT_S)
                run = wandb.init(
                    **_run_arguments(stream), resume="allow", settings=self._settings()
                )
                _record_lineage(api, run, stream)
            except Exception as error:
                raise ReportError(f"cannot open: {error}") from error
        return WandbRun(api, run, self._watchdog)

    def _settings(self) -> wandb.Settings:
        wanted = {
            **_SETTINGS,
            "root_dir": str(self._directory),
            "reinit": "create_new",
            "x_file_stream_transmit_interval": max(1, self._transmit_s),
        }
        # Older SDKs lack some of them; the watchdog bounds what they do not.
        known = wandb.Settings.model_fields
        return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})


class WandbRun:
    """One open W&B run; see `RunLog`."""

    def __init__(self, api: wandb.Api, run: wandb.Run, watchdog: Watchdog) -> None:
        self._api = api
        self._run = run
        self._path = f"{run.entity}/{run.project}/{run.id}"
        self._watchdog = watchdog
        self.first_stored_step = int(run.starting_step) - 1

    def log(self, window: WindowClosed) -> None:
        """Hand a window to the SDK, which uploads it on its own."""
        row: dict[str, object] = dict(window.metrics)
        if window.batch_sizes:
            row["batch/sizes"] = _histogram(dict(window.batch_sizes))
        with self._watchdog.limit():
            try:
                self._run.log(row, step=window.index, commit=True)
                self._run.summary.update(dict(window.totals))
            except Exception as error:
                raise ReportError(f"cannot log: {error}") from error

    def stored_step(self) -> int:
        """Ask the server for the last step that it stores; -1 for none."""
        with self._watchdog.limit():
            try:
                self._api.flush()
                return int(self._api.run(self._path).lastHistoryStep)
            except Exception as error:
                raise ReportError(f"cannot ask for the stored step: {error}") from error

    def finish(self, exit_code: int) -> None:
        """Send what is left and mark the run as over."""
        with self._watchdog.limit():
            try:
                self._run.finish(exit_code=exit_code)
            except Exception as error:
                raise ReportError(f"cannot finish: {error}") from error


def _run_arguments(stream: Stream) -> dict[str, Any]:
    entity, project, name = stream.pinned_name.split("/")
    return {
        "entity": entity,
        "project": project,
        "id": stream.run_id,
        "name": f"serve-{stream.deployment}-{name.replace(':', '-')}",
        "group": f"serve-{stream.deployment}",
        "job_type": "inference",
        "tags": ["runport", "serving", stream.deployment[:_MAX_TAG_CHARACTERS]],
        "config": dict(stream.config),
    }


def _record_lineage(api: wandb.Api, run: wandb.Run, stream: Stream) -> None:
    # A version deleted while it is served must not keep its metrics from arriving.
    if api.artifact_exists(stream.pinned_name):
        run.use_artifact(stream.pinned_name)


def _histogram(batch_sizes: dict[int, int]) -> wandb.Histogram:
    """Return batches by size; sizes beyond the SDK's bins share the last one."""
    lowest = min(batch_sizes)
    bins = min(max(batch_sizes) - lowest + 1, _MAX_HISTOGRAM_BINS)
    counts = [0] * bins
    for size, count in batch_sizes.items():
        counts[min(size - lowest, bins - 1)] += count
    edges = [lowest + position - 0.5 for position in range(bins + 1)]
    return wandb.Histogram(np_histogram=(counts, edges))
