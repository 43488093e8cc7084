"""From what was measured to a choice; pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry import TuningRow
from serving.tune.contenders import NAMED_ONLY, Contender
from serving.tune.examine import Examination
from serving.tune.rounds import Timed, ratios

_LEAST_NOISE = 0.01
_MOST_NOISE = 0.03
"""Closer than this two contenders are as good as equal, and the more exact one wins."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be chosen.

    Attributes:
        budget: largest disagreement.
        objective: `throughput`, `latency` or `memory`.
        named: candidates that were asked for.
    """

    budget: float
    objective: str
    named: Sequence[str]


def make_row(
    timed: Timed, reference: Timed, examined: Examination, rules: Rules, bare_bytes: int | None
) -> TuningRow:
    """Put together what was measured of a contender, and say whether it may be chosen."""
    contender = timed.contender
    obstacle = timed.failure or why_not(contender, examined, rules)
    speeds = ratios(timed, reference, "throughput")
    quickness = ratios(timed, reference, "latency")
    timings = list(timed.timings.values())
    if not speeds and not obstacle:
        obstacle = "it was not timed beside the reference"
    grown = None
    if timed.resident_bytes is not None and bare_bytes is not None:
        grown = max(0, timed.resident_bytes - bare_bytes)
    return TuningRow(
        engine=contender.engine,
        precision=contender.precision,
        layout=contender.layout,
        export_key=contender.export_key,
        items_per_s=_median([one.items_per_s for one in timings]),
        speed=_median(speeds),
        speed_low=min(speeds, default=None),
        speed_high=max(speeds, default=None),
        latency_p50_ms=_median([one.p50_ms for one in timings]),
        latency_p95_ms=_median([one.p95_ms for one in timings]),
        latency_ratio=_inverse(_median(quickness)),
        resident_bytes=timed.resident_bytes,
        growth_bytes=grown,
        disagreement=examined.fidelity.disagreement,
        max_score_diff=_finite(examined.fidelity.max_score_diff),
        mates_disagreement=examined.mates.disagreement,
        mates_score_diff=_finite(examined.mates.max_score_diff),
        batched=examined.mates.compared,
        batch_invariant=examined.batch_invariant,
        eligible=not obstacle,
        reason=obstacle or _remark(timed, examined),
    )


def why_not(contender: Contender, examined: Examination, rules: Rules) -> str:
    """Return why a contender may not be chosen; empty when it may."""
    off = examined.fidelity.disagreement
    if off > rules.budget:
        return f"its answers differ on {off:.2%} of the inputs, more than {rules.budget:.2%}"
    if not examined.batch_invariant and contender.layout.max_batch_rows > 1:
        return "its answers depend on batch-mates"
    if contender.name in NAMED_ONLY and contender.name not in rules.named:
        return NAMED_ONLY[contender.name]
    return ""


def choose(rows: Sequence[TuningRow], exactness: Mapping[str, int], rules: Rules) -> int:
    """Return the index of the winner; of those within noise of the best, the most exact.

    Args:
        rows: measured; at least one is eligible.
        exactness: by candidate; smaller is more exact.
        rules: what counts.
    """
    merits = {index: _merit(row, rules.objective) for index, row in enumerate(rows) if row.eligible}
    best = max(merits, key=lambda index: merits[index])
    near = merits[best] * (1 - noise(rows[best]))
    level = [index for index, merit in merits.items() if merit >= near]

    def order(index: int) -> tuple[float, int, float]:
        row = rows[index]
        return (row.disagreement or 0.0, exactness.get(row.name, len(exactness)), -merits[index])

    return min(level, key=order)


def noise(row: TuningRow) -> float:
    """Return the share of a contender's figure that is noise: half its spread, within bounds."""
    if not row.speed or row.speed_low is None or row.speed_high is None:
        return _LEAST_NOISE
    spread = (row.speed_high - row.speed_low) / (2 * row.speed)
    return min(_MOST_NOISE, max(_LEAST_NOISE, spread))


def explain(rows: Sequence[TuningRow], chosen: int, rules: Rules) -> str:
    """Say in a sentence why the winner won."""
    winner = rows[chosen]
    best = max((row for row in rows if row.eligible), key=lambda row: _merit(row, rules.objective))
    what = {"throughput": "the highest throughput", "latency": "the shortest latency"}.get(
        rules.objective, "the least memory"
    )
    if best is winner:
        return f"{what} within the budget of {rules.budget:.2%}"
    words = best.layout.words if best.layout else ""
    return f"as good as {best.name} {words} within noise, and more exact"


def _merit(row: TuningRow, objective: str) -> float:
    """Return a figure of which more is better."""
    if objective == "latency":
        return _inverse(row.latency_ratio) or 0.0
    if objective == "memory":
        return 1 / row.growth_bytes if row.growth_bytes else 0.0
    return row.speed or 0.0


def _remark(timed: Timed, examined: Examination) -> str:
    words = []
    if not examined.batch_invariant:
        words.append("each row runs alone: batch-mates would change its answers")
    if timed.hopeless:
        words.append(f"left out after {len(timed.timings)} rounds: others are far better")
    return "; ".join(words)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
