"""Which version of a collection is meant: `v3`, `best`, `best(eval/f1)`, `step(500)`; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import InvalidReferenceError

_VERSION = re.compile(r"v(0|[1-9][0-9]{0,17})\Z")
_STEP = re.compile(r"[0-9]{1,18}\Z")
_MODES = frozenset({"max", "min"})
_GRAMMAR_HINT = "Use :v3, :alias, :best(metric), :best(metric,min) or :step(500)."


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version by its number: `v3`."""

    index: int

    def __str__(self) -> str:
        return f"v{self.index}"


@dataclass(frozen=True, slots=True)
class Alias:
    """Whatever version the alias points at when it is asked."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Best:
    """The version with the best value of a metric in its metadata.

    Attributes:
        metric: key such as `eval/f1`; the doubled `eval/eval_f1` is understood too.
        mode: `max`, `min`, or None for the Trainer's rule (`min` when the name ends in `loss`).
    """

    metric: str
    mode: str | None = None

    def __str__(self) -> str:
        return f"best({self.metric},{self.mode})" if self.mode else f"best({self.metric})"

    @property
    def effective_mode(self) -> str:
        """`max` or `min`, by the Trainer's own rule when none was given."""
        return self.mode or default_mode(self.metric)


@dataclass(frozen=True, slots=True)
class Step:
    """The version logged at this global training step."""

    step: int

    def __str__(self) -> str:
        return f"step({self.step})"


Selector = Version | Alias | Best | Step

LATEST = Alias("latest")
"""What a name without a selector means."""


def default_mode(metric: str) -> str:
    """Return `min` for metrics that end in `loss`, else `max`: the Trainer's own rule."""
    return "min" if metric.lower().endswith("loss") else "max"


def parse_selector(text: str) -> Selector:
    """Parse what follows the colon of a reference.

    Raises:
        InvalidReferenceError: the text is no selector.
    """
    if match := _VERSION.match(text):
        return Version(int(match[1]))
    if text.startswith("best(") and text.endswith(")"):
        return _parse_best(text[len("best(") : -1])
    if text.startswith("step(") and text.endswith(")"):
        inner = text[len("step(") : -1].strip()
        if not _STEP.match(inner):
            raise InvalidReferenceError(f"{text!r} names no training step.", hint=_GRAMMAR_HINT)
        return Step(int(inner))
    return Alias(check_alias(text))


def _parse_best(inner: str) -> Best:
    metric, comma, mode = inner.rpartition(",")
    if not comma:
        metric, mode = inner, ""
    metric, mode = metric.strip(), mode.strip()
    if comma and mode not in _MODES:
        raise InvalidReferenceError(f"{mode!r} is neither max nor min.", hint=_GRAMMAR_HINT)
    if not is_metric(metric):
        raise InvalidReferenceError(f"{metric!r} names no metric.", hint=_GRAMMAR_HINT)
    return Best(metric, mode or None)


def is_metric(text: str) -> bool:
    """Whether the text can name a metric inside `best(...)`."""
    return bool(text) and text == text.strip() and text.isprintable() and "," not in text


def check_alias(text: str) -> str:
    """Return the text if it can be an alias.

    W&B forbids `/` and `:`; `@`, `(` and `)` would make references ambiguous.

    Raises:
        InvalidReferenceError: it cannot.
    """
    if not text or text != text.strip() or not text.isprintable() or set(text) & set("/:@()"):
        raise InvalidReferenceError(f"{text!r} is no alias or version.", hint=_GRAMMAR_HINT)
    return text
