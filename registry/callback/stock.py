"""Keeps transformers' own `WandbCallback` to metrics while `RunportCallback` logs the models.

`report_to="wandb"` makes the Trainer construct a `WandbCallback` and put it before the user's
callbacks, so its first event comes before any of ours: with `WANDB_LOG_MODEL=end` it has logged a
version without weights before we are asked anything, and no event hands us the list of callbacks.
What is certain in every order (callbacks=[...], add_callback, a class or an instance) is that
both callbacks are constructed before training starts. So the class's `_log_model` becomes a
property that answers "false" for as long as a `RunportCallback` that logs models is alive, and
`_wandb` one that answers None (the callback's own word for "do nothing") while one is alive that
was told `WANDB_DISABLED`. Everything else of the class stays as it is; when the last
`RunportCallback` is gone, so is the effect.

Should a later transformers rename these attributes, both properties are never asked, metrics still
work, and the test against the real Trainer fails.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

_loggers_of_models: weakref.WeakSet[Any] = weakref.WeakSet()
_disablers: weakref.WeakSet[Any] = weakref.WeakSet()


class _Overridden:
    """A data descriptor over an instance attribute; answers `value` while `owners` has members."""

    def __init__(self, name: str, owners: weakref.WeakSet[Any], value: Any) -> None:
        self._name = name
        self._owners = owners
        self._value = value

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        if self._owners:
            return self._value
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = value


class _QuietAboutTrue(logging.Filter):
    """Drops transformers' word that `WANDB_LOG_MODEL=true` is disabled: here it is not."""

    def filter(self, record: logging.LogRecord) -> bool:
        about = "Received unrecognized `WANDB_LOG_MODEL`" in str(record.msg)
        return not (about and _loggers_of_models)


def leave_models_to(owner: Any) -> None:
    """Let no `WandbCallback` log models while `owner` is alive; metrics stay."""
    _install()
    _loggers_of_models.add(owner)


def silence_for(owner: Any) -> None:
    """Let no `WandbCallback` do anything while `owner` is alive (`WANDB_DISABLED`)."""
    _install()
    _disablers.add(owner)


def _install() -> None:
    from transformers.integrations import integration_utils
    from transformers.integrations.integration_utils import WandbCallback

    if isinstance(vars(WandbCallback).get("_log_model"), _Overridden):
        return
    off = integration_utils.WandbLogModel("false")
    WandbCallback._log_model = _Overridden("_log_model", _loggers_of_models, off)
    WandbCallback._wandb = _Overridden("_wandb", _disablers, None)
    integration_utils.logger.addFilter(_QuietAboutTrue())
