"""Which artifact a name may mean, by trainer and era; pure.

| who logged it                    | what it is called                                             |
| -------------------------------- | ------------------------------------------------------------- |
| transformers 4.2-4.4, our callback | run-<run_name>                                              |
| transformers 4.5-4.25            | model-<run id>                                                |
| transformers 4.26-4.41           | model-<run name or id>, checkpoint-<run name or id>           |
| transformers 4.42-5.x            | model-<run name or id>; v0 is a stub without weights          |
| Lightning                        | model-<run id>                                                |
| Keras, Ultralytics               | run_<run id>_model                                            |
| run.log_model(path)              | run-<run id>-<basename>                                       |

A name is looked up as written first. Only when no such collection exists are
the names of the other eras tried, all at once: two answers are ambiguous.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from registry.errors import AmbiguousNameError
from registry.versions import ArtifactVersion

FOREIGN_TYPES = frozenset(
    {
        "run_table",
        "dataset",
        "data",
        "code",
        "job",
        "table",
        "wandb-history",
        "wandb-events",
        "logs",
    }
)
"""Artifact types that are certainly no models, whatever they are called."""

_MODEL_WORDS = ("model", "checkpoint", "weights", "adapter", "lora")

STUB_ALIAS = "base_model"
FINAL_ALIAS = "final_model"
_STEP_ALIASES = ("checkpoint_global_step_", "checkpoint-")
"""Before the step, as transformers spells it since 4.42, and before."""

_STEP = re.compile(r"[0-9]{1,18}\Z")
_STEP_KEYS = ("step", "train/global_step", "global_step", "trainer/global_step")


def is_model_type(type_name: str) -> bool:
    """Whether artifacts of this type look like models."""
    lowered = type_name.lower()
    return lowered not in FOREIGN_TYPES and any(word in lowered for word in _MODEL_WORDS)


def is_foreign_type(type_name: str) -> bool:
    """Whether artifacts of this type are certainly no models."""
    lowered = type_name.lower()
    return lowered in FOREIGN_TYPES or lowered.startswith("wandb-")


def run_display_name(collection: str) -> str:
    """Return the run name that a user means by `run-<run_name>` or `<run_name>`."""
    return collection.removeprefix("run-") or collection


def era_names(collection: str) -> tuple[str, ...]:
    """Return the other collection names that `collection` may mean, without itself.

    A name that already carries an era's own prefix means just itself.
    """
    if collection.startswith(("model-", "checkpoint-", "run_")):
        return ()
    name = run_display_name(collection)
    candidates = (f"run-{name}", f"model-{name}", f"checkpoint-{name}", f"run_{name}_model", name)
    return tuple(candidate for candidate in candidates if candidate != collection)


def choose_era(collection: str, existing: Mapping[str, str]) -> str | None:
    """Choose the collection that `collection` means among those that exist.

    Args:
        collection: the name as written.
        existing: collection name -> artifact type, of the whole project.

    Returns:
        The one name, or None when no model-like candidate exists. The name as
        written wins, whatever its type, unless that is certainly no model.

    Raises:
        AmbiguousNameError: several do.
    """
    written = existing.get(collection)
    if written is not None and not is_foreign_type(written):
        return collection
    found = [n for n in era_names(collection) if n in existing and is_model_type(existing[n])]
    return only_one(collection, found) if found else None


def only_one(collection: str, found: Sequence[str]) -> str:
    """Return the single candidate.

    Raises:
        AmbiguousNameError: there are several; the message lists them.
    """
    if len(found) > 1:
        raise AmbiguousNameError(
            f"{collection!r} may mean {', '.join(found)}.",
            hint="Write the full name of one of them.",
        )
    return found[0]


def is_stub(version: ArtifactVersion) -> bool:
    """Whether the version is the Trainer's architecture stub, which has no weights."""
    return version.metadata.get("initial_model") is True or STUB_ALIAS in version.aliases


def weights_version(versions: Iterable[ArtifactVersion]) -> ArtifactVersion | None:
    """Return the version that holds the trained weights: `final_model`, else the newest."""
    candidates = [version for version in versions if not is_stub(version)]
    for version in candidates:
        if FINAL_ALIAS in version.aliases:
            return version
    return max(candidates, key=version_index, default=None)


def version_index(version: ArtifactVersion) -> int:
    """Return 3 for `v3`; -1 when the version has no number."""
    digits = version.version.removeprefix("v")
    return int(digits) if _STEP.match(digits) else -1


def metric_keys(metric: str) -> tuple[str, ...]:
    """Return the metadata keys under which `metric` may have been logged.

    The Trainer's W&B callback rewrites `eval_f1` to `eval/f1`, but keys that
    already had the slash arrive doubled, as `eval/eval_f1`.
    """
    group, slash, name = metric.rpartition("/")
    if not slash:
        group, underscore, rest = metric.partition("_")
        if underscore and group in {"eval", "test", "train"}:
            return (metric, f"{group}/{rest}", f"{group}/{metric}")
        return (metric,)
    stem = name.removeprefix(f"{group}_")
    keys = (metric, f"{group}/{stem}", f"{group}/{group}_{stem}", f"{group}_{stem}")
    return tuple(dict.fromkeys(keys))


def metric_value(metadata: Mapping[str, Any], metric: str) -> float | None:
    """Return the finite value of `metric`, flat or nested, or None."""
    for key in metric_keys(metric):
        value = metadata.get(key)
        if value is None:
            value = _nested(metadata, key.split("/"))
        number = _finite(value)
        if number is not None:
            return number
    return None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None  # An integer that no float can hold is no measurement.
    return number if math.isfinite(number) else None


def _nested(metadata: Mapping[str, Any], keys: Sequence[str]) -> object:
    value: object = metadata
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def numeric_metrics(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a version's metadata: finite numbers under a `group/name` key."""
    numbers = ((key, _finite(value)) for key, value in metadata.items() if "/" in key)
    return {key: number for key, number in numbers if number is not None}


def training_step(version: ArtifactVersion) -> int | None:
    """Return the global step at which the version was logged, when it says so."""
    step = alias_step(version)
    if step is not None:
        return step
    for key in _STEP_KEYS:
        number = _finite(version.metadata.get(key))
        if number is not None and number >= 0:
            return int(number)
    return None


def alias_step(version: ArtifactVersion) -> int | None:
    """Return the global step of the checkpoint that the version is, by its alias."""
    for alias in version.aliases:
        for prefix in _STEP_ALIASES:
            digits = alias.removeprefix(prefix)
            if digits != alias and _STEP.match(digits):
                return int(digits)
    return None
