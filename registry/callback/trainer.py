"""`RunportCallback`: the Trainer's events, turned into versions of `run-<run_name>`."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from registry.callback import stock
from registry.callback.arguments import json_safe, public_arguments
from registry.callback.directory import (
    find_checkpoint,
    link_checkpoint,
    link_training_state,
    write_model,
)
from registry.callback.metadata import (
    Chosen,
    checkpoint_choice,
    evaluation_metrics,
    final_choice,
    renamed_metrics,
    version_metadata,
)
from registry.callback.names import (
    FINAL_ALIAS,
    checkpoint_aliases,
    chosen_run_name,
    collection_name,
)
from registry.callback.origin import base_artifact
from registry.callback.upload import (
    MODEL_TYPE,
    TRAINING_STATE_TYPE,
    LoggedModel,
    Parcel,
    Uploader,
    UploadFailure,
)
from registry.config import LogModel, TrainingSettings, parse_log_model
from registry.errors import RegistryError, UnavailableError

STAGING_DIR = "runport"
"""Beneath `output_dir`: models on their way to W&B, and those that did not get there."""

_SHARDED = frozenset({"FSDP", "DEEPSPEED", "MEGATRON_LM"})


class RunportCallback(TrainerCallback):  # type: ignore[misc] # transformers ships no types
    """Logs the trained model as the W&B artifact `run-<run_name>`, next to the stock callback.

    Metrics stay with transformers' `WandbCallback` (`report_to="wandb"`); while this object is
    alive that callback logs no models of its own. Without it, this one starts the run.

    Args:
        log_model: `end` (or `true`), `checkpoint` or `false`; None takes `WANDB_LOG_MODEL`.
        settings: everything else; None reads the environment.

    Raises:
        ConfigError: a setting has a value that cannot be used.
    """

    def __init__(
        self, log_model: str | None = None, *, settings: TrainingSettings | None = None
    ) -> None:
        chosen = settings if settings is not None else TrainingSettings.from_environment()
        if log_model is not None:
            chosen = replace(chosen, log_model=parse_log_model(log_model))
        self.settings = chosen
        self._uploader = Uploader(chosen)
        self._training = False
        self._trained_step: int | None = None
        if chosen.disabled:
            stock.silence_for(self)
        elif chosen.log_model is not LogModel.FALSE:
            stock.leave_models_to(self)

    @property
    def logged(self) -> tuple[LoggedModel, ...]:
        """The versions that were logged, oldest first."""
        return tuple(self._uploader.logged)

    @property
    def failures(self) -> tuple[UploadFailure, ...]:
        """The versions that could not be logged, with the directories that hold them."""
        return tuple(self._uploader.failures)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Start a run if nobody did.

        Raises:
            UnavailableError: W&B gave no run, or the training is sharded over devices.
        """
        if self._is_wanted():
            _refuse_sharding()  # in every process: were only one to raise, the others would hang
        elif state.is_world_process_zero and not self.settings.disabled:
            self._uploader.notice("no model will be logged; WANDB_LOG_MODEL=end asks for it")
        if not self._is_active(state):
            return
        self._training, self._trained_step = True, None
        group = (args.run_name or args.output_dir) if state.is_hyper_param_search else None
        started = self._uploader.ensure_run(
            name=state.trial_name or chosen_run_name(args.run_name, args.output_dir),
            group=group,
            config=_run_config(args, model),
            fresh=state.is_hyper_param_search,
        )
        if started:
            self._uploader.watch(model, log_freq=max(100, state.logging_steps))

    def on_save(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Log the checkpoint that was just saved, when every checkpoint is wanted."""
        if self.settings.log_model is not LogModel.CHECKPOINT or not self._is_active(state):
            return
        chosen = checkpoint_choice(state)
        checkpoint = find_checkpoint(Path(args.output_dir), chosen.step)
        aliases = checkpoint_aliases(chosen.step, chosen.epoch)
        self._log(
            args, state, model, chosen, aliases,
            lambda directory: link_checkpoint(checkpoint, directory, args=args, model=model),
        )  # fmt: skip
        if self.settings.training_state:
            self._log(
                args, state, model, chosen, aliases,
                lambda directory: link_training_state(checkpoint, directory),
                kind=TRAINING_STATE_TYPE,
            )  # fmt: skip

    def on_train_end(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        processing_class: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Log the trained model: the best checkpoint with `load_best_model_at_end`, else the last.

        Whatever goes wrong is reported, with the directory that holds the model; the training's
        result is returned all the same.
        """
        self._training = False
        if not self._is_active(state):
            return
        chosen = final_choice(args, state)
        collator = getattr(train_dataloader, "collate_fn", None)
        self._log(
            args, state, model, chosen, (FINAL_ALIAS,),
            lambda directory: write_model(
                model, directory, args=args, processor=processing_class, collator=collator
            ),
        )  # fmt: skip
        self._uploader.settle()
        self._uploader.summarize(json_safe(evaluation_metrics(state.log_history, chosen.step)))
        self._trained_step = state.global_step

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Add the metrics of an evaluation after training to the version that was logged."""
        if self._training or self._trained_step != state.global_step or not metrics:
            return
        self._uploader.amend(renamed_metrics(metrics))

    def _is_wanted(self) -> bool:
        return self.settings.log_model is not LogModel.FALSE and not self.settings.disabled

    def _is_active(self, state: Any) -> bool:
        here = self._is_wanted() and state.is_world_process_zero
        return bool(here and self._uploader.is_kept())

    def _log(
        self,
        args: Any,
        state: Any,
        model: Any,
        chosen: Chosen,
        aliases: tuple[str, ...],
        prepare: Callable[[Path], object],
        *,
        kind: str = MODEL_TYPE,
    ) -> None:
        """Prepare a directory and send it; every failure is recorded, none is raised."""
        parcel, complete = None, False
        try:
            parcel = self._parcel(args, state, model, chosen, aliases, kind)
            prepare(parcel.directory)
            complete = True
            self._uploader.send(parcel)
        except Exception as error:  # a model's own code may raise anything; training goes on
            known = error if isinstance(error, RegistryError) else _unexpected(error)
            self._uploader.fail(known, step=chosen.step, parcel=parcel, complete=complete)

    def _parcel(
        self,
        args: Any,
        state: Any,
        model: Any,
        chosen: Chosen,
        aliases: tuple[str, ...],
        kind: str,
    ) -> Parcel:
        run_name = self._run_name(args, state)
        suffix = "" if kind == MODEL_TYPE else f"-{kind}"
        collection = collection_name(run_name, suffix)
        base = base_artifact(model)
        metadata = version_metadata(
            model=model, args=args, state=state, chosen=chosen, run_name=run_name, base=base
        )
        staging = Path(args.output_dir).absolute() / STAGING_DIR
        directory = staging / f"{collection}-step-{chosen.step}-{uuid.uuid4().hex[:8]}"
        return Parcel(directory, collection, kind, aliases, metadata, chosen.step, base)

    def _run_name(self, args: Any, state: Any) -> str:
        chosen = chosen_run_name(args.run_name, args.output_dir)
        if chosen is not None and not state.is_hyper_param_search:
            return chosen
        return self._uploader.machine_name(unless=args.output_dir)


def _run_config(args: Any, model: Any) -> dict[str, Any]:
    """Return what the stock callback writes as a run's config, without secrets."""
    config = getattr(model, "config", None)
    described = {} if config is None else config.to_dict()
    return {**dict(json_safe(described)), **public_arguments(args)}


def _refuse_sharding() -> None:
    from accelerate import PartialState

    kind = PartialState().distributed_type.name
    if kind in _SHARDED:
        raise UnavailableError(
            f"RunportCallback does not log models that are sharded over devices ({kind}).",
            hint="Remove it, save with trainer.save_model() and log the directory yourself.",
        )


def _unexpected(error: Exception) -> RegistryError:
    return UnavailableError(
        f"The model could not be prepared ({type(error).__name__}: {error}).",
        hint="It is still in memory: save it with trainer.save_model(<directory>).",
    )
