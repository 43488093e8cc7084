"""Runs and artifacts of a training: the only module of the callback that imports wandb."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.config import TrainingSettings
from registry.errors import RegistryError, UnavailableError

MODEL_TYPE = "model"
TRAINING_STATE_TYPE = "training-state"

_log = logging.getLogger("registry.callback")


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """One version that was logged.

    Attributes:
        name: `entity/project/collection:vN`; the collection alone when the run is offline.
        collection: `run-<run_name>`.
        version: `vN`; None when the run is offline.
        type: `model` or `training-state`.
        step: the optimiser step of the weights.
        aliases: what was asked for, besides `latest`.
    """

    name: str
    collection: str
    version: str | None
    type: str
    step: int
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UploadFailure:
    """One version that could not be logged.

    Attributes:
        collection: what it would have been a version of; empty when it did not come so far.
        step: the optimiser step of the weights.
        directory: where the complete model is; None when it could not be written either.
        error: why, and what to do.
    """

    collection: str
    step: int
    directory: Path | None
    error: RegistryError


@dataclass(frozen=True, slots=True)
class Parcel:
    """A directory that is ready to be logged, and what to say about it.

    Attributes:
        directory: holds exactly the artifact's files; removed once they are safe in W&B.
        collection, type, aliases, metadata: of the artifact.
        step: the optimiser step of the weights.
        base: qualified name of the artifact that the model was made from, when it is known.
    """

    directory: Path
    collection: str
    type: str
    aliases: tuple[str, ...]
    metadata: Mapping[str, Any]
    step: int
    base: str | None = None


class Uploader:
    """Logs parcels to the active W&B run; one upload is under way at a time.

    Attributes:
        logged: what arrived, in order.
        failures: what did not.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.logged: list[LoggedModel] = []
        self.failures: list[UploadFailure] = []
        self._settings = settings
        self._pending: list[tuple[Any, Parcel]] = []
        self._newest: Any = None
        self._own_run: Any = None

    def ensure_run(
        self, *, name: str | None, group: str | None, config: Mapping[str, Any], fresh: bool
    ) -> bool:
        """Start a run when none is active; returns whether it did.

        Args:
            name: of the new run; None lets W&B make one.
            group: of the new run.
            config: of the new run.
            fresh: finish an active run first if this object started it (a new trial).

        Raises:
            UnavailableError: W&B gave no run.
        """
        import wandb

        if fresh and self._own_run is not None and wandb.run is self._own_run:
            wandb.finish()
        if wandb.run is not None:
            return False
        try:
            self._own_run = wandb.init(
                project=self._settings.project, name=name, group=group, config=dict(config)
            )
        except (wandb.Error, OSError) as error:
            raise UnavailableError(
                f"W&B gave no run to log the model to: {error}",
                hint="Check WANDB_BASE_URL and the key, or train with WANDB_MODE=offline.",
            ) from error
        return True

    def watch(self, model: Any, log_freq: int) -> None:
        """Record gradients or parameters in the active run as `WANDB_WATCH` says."""
        import wandb

        if self._settings.watch is None or wandb.run is None:
            return
        if getattr(model, "_wandb_watch_called", False):
            wandb.unwatch(model)
        wandb.watch(model, log=self._settings.watch, log_freq=log_freq)

    def summarize(self, metrics: Mapping[str, Any]) -> None:
        """Write `metrics` into the summary of the active run if this object started it."""
        import wandb

        if wandb.run is not None and wandb.run is self._own_run:
            wandb.run.summary.update(dict(metrics))

    def is_kept(self) -> bool:
        """Whether the active run keeps anything at all (`WANDB_MODE=disabled` does not)."""
        import wandb

        return wandb.run is None or not wandb.run.disabled

    def machine_name(self, unless: str | None) -> str:
        """Return the active run's name; its id when it has none, or only `unless`.

        Raises:
            UnavailableError: no run is active.
        """
        run = self._run()
        return str(run.id if not run.name or run.name == unless else run.name)

    def send(self, parcel: Parcel) -> None:
        """Start logging `parcel`, after the one before it has arrived.

        Online, files are uploaded from where they are; offline, the SDK keeps a copy of its own.

        Raises:
            UnavailableError: no run is active, or W&B refused it.
        """
        import wandb

        self.settle()
        run = self._run()
        if parcel.base is not None and not run.offline:
            self._record_use(run, parcel.base)
        artifact = wandb.Artifact(
            name=parcel.collection, type=parcel.type, metadata=dict(parcel.metadata)
        )
        try:
            policy = "mutable" if run.offline else "immutable"
            artifact.add_dir(str(parcel.directory), policy=policy, skip_cache=True)
            run.log_artifact(artifact, aliases=["latest", *parcel.aliases])
        except Exception as error:  # the SDK raises many types; the model must not be lost
            raise self._not_taken(error) from error
        if run.offline:
            self._arrived(parcel, None)
        else:
            self._pending.append((artifact, parcel))

    def _record_use(self, run: Any, name: str) -> None:
        try:
            run.use_artifact(name)
        except Exception as error:  # the metadata names it too; the model must not be lost
            _log.warning("W&B did not record that %s was used: %s", name, error)

    def settle(self) -> None:
        """Wait until everything sent has arrived or failed; never raises for a failed upload."""
        while self._pending:
            artifact, parcel = self._pending.pop(0)
            try:
                artifact.wait(timeout=self._settings.upload_timeout_s)
            except Exception as error:  # the SDK raises many types; the model must not be lost
                self.fail(self._not_taken(error), step=parcel.step, parcel=parcel, complete=True)
            else:
                self._arrived(parcel, artifact)

    def fail(
        self, error: RegistryError, *, step: int, parcel: Parcel | None = None, complete: bool
    ) -> None:
        """Record that a model was not logged and tell the user where it is.

        Args:
            error: why.
            step: the optimiser step of the weights.
            parcel: what was not logged; None when it did not come so far.
            complete: whether the parcel's directory holds the whole model; if not it is removed.
        """
        kept = parcel.directory if parcel is not None and complete else None
        if parcel is not None and kept is None:
            self._discard(parcel)
        collection = "" if parcel is None else parcel.collection
        self.failures.append(UploadFailure(collection, step, kept, error))
        what = f"{collection or 'The model'} (step {step}) was NOT logged to W&B."
        rescue = _rescue(parcel, _project()) if parcel is not None and kept is not None else ""
        _log.error("%s %s %s%s", what, error, error.hint, rescue)

    def amend(self, metrics: Mapping[str, Any]) -> None:
        """Add `metrics` that the newest logged model does not have yet to its metadata."""
        if self._newest is None:
            return
        new = {k: v for k, v in metrics.items() if k not in self._newest.metadata}
        if not new:
            return
        try:
            self._newest.metadata.update(new)
            self._newest.save()
        except Exception as error:  # an evaluation must not fail because of a note about it
            _log.error("The metrics of %s were not updated: %s", self._newest.name, error)

    def notice(self, text: str) -> None:
        """Tell the user something through wandb's own channel, which `WANDB_SILENT` quiets."""
        import wandb

        wandb.termlog(f"Runport: {text}")

    def _run(self) -> Any:
        import wandb

        if wandb.run is None:
            raise UnavailableError(
                "The W&B run was finished before the model could be logged.",
                hint="Call wandb.finish() after trainer.train() has returned.",
            )
        return wandb.run

    def _arrived(self, parcel: Parcel, artifact: Any) -> None:
        self._discard(parcel)
        name = parcel.collection if artifact is None else artifact.qualified_name
        version = None if artifact is None else artifact.version
        self.logged.append(
            LoggedModel(name, parcel.collection, version, parcel.type, parcel.step, parcel.aliases)
        )
        if artifact is None:
            self.notice(f"{name} will be logged by `wandb sync` of this offline run")
            return
        if parcel.type == MODEL_TYPE:
            self._newest = artifact
        self.notice(f"logged {name} (step {parcel.step})")

    def _discard(self, parcel: Parcel) -> None:
        shutil.rmtree(parcel.directory, ignore_errors=True)
        parent = parcel.directory.parent
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()

    def _not_taken(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"W&B did not take it ({type(error).__name__}: {error}).",
            hint="Check that the server can be reached, the key is right and the disk is not full.",
        )


def _project() -> str:
    """Return `entity/project/` of the active run, as far as it is known."""
    import wandb

    run = wandb.run
    parts = (run.entity, run.project) if run is not None else ()
    return "".join(f"{part}/" for part in parts if part)


def _rescue(parcel: Parcel, project: str) -> str:
    """Write the metadata beside the directory and return what the user is told about both."""
    beside = parcel.directory.with_name(f"{parcel.directory.name}.metadata.json")
    try:
        beside.write_text(json.dumps(dict(parcel.metadata), indent=2) + "\n", encoding="utf-8")
        note = f", its metadata in {beside.name} beside it"
    except OSError:  # the disk may be the reason for all this; the model matters more
        note = ""
    aliases = "".join(f" --alias {alias}" for alias in ("latest", *parcel.aliases))
    return (
        f"\nThe model is complete in {parcel.directory}{note}\n"
        f"Log it later with: wandb artifact put --type {parcel.type} "
        f"--name {project}{parcel.collection}{aliases} {shlex.quote(str(parcel.directory))}"
    )
