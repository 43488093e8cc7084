"""The parity report: how an export compares with torch; plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

INVARIANCE_LIMIT = 1e-5
"""Largest difference that batch-mates may make to a score before it counts as one."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How the exported graph's outputs compare with torch's (eval mode, float32).

    Every input is answered three times: by torch alone, by the export alone, and by the export in
    padded batches of mixed lengths. Differences are of logits. An export derived from another, in
    another precision or for another engine, is compared with that one in place of torch.

    Attributes:
        passed: both differences are within `allowed_abs_diff`.
        tolerance: what was asked for.
        allowed_abs_diff: the tolerance itself for classification; for regression it grows with the
            largest reference output, because float32's own error does.
        max_abs_diff: largest difference to torch, each input alone.
        max_batched_abs_diff: the same for the export run in batches.
        max_invariance_abs_diff: largest difference between alone and batched, of the export.
        percentiles: of the per-input largest difference, by name (`p50`, `p90`, `p99`).
        label_agreement: share of inputs with torch's label, alone (0 to 1).
        batched_label_agreement: the same in batches.
        inputs: how many were compared.
        samples: how many of them came from the artifact's `samples.jsonl`.
        lengths: the different lengths of the inputs, ascending.
        seconds: time that the comparison took.
        tools: versions of what made and ran the export.
        hardware: processor, cores and machine that it ran on.
        reference: what it was compared with, such as `torch fp32` or `onnx fp32`.
        min_agreement: smallest `budget_agreement` that passes; None where rounding is all that may
            differ, so that the differences alone decide.
        budget_agreement: share of what counts that agrees, alone and in batches (the smaller):
            held-out samples, where there are enough, else drawn inputs that are no near ties.
        budget_inputs: how many inputs, or tokens of inputs, that was counted over.
        unit: of the lengths, in words.
        calibration: what static scales were measured on; empty for other precisions.
    """

    passed: bool
    tolerance: float
    allowed_abs_diff: float
    max_abs_diff: float
    max_batched_abs_diff: float
    max_invariance_abs_diff: float
    percentiles: Mapping[str, float]
    label_agreement: float
    batched_label_agreement: float
    inputs: int
    samples: int
    lengths: tuple[int, ...]
    seconds: float
    tools: Mapping[str, str]
    hardware: Mapping[str, str]
    reference: str = "torch fp32"
    min_agreement: float | None = None
    budget_agreement: float = 1.0
    budget_inputs: int = 0
    unit: str = "tokens"
    calibration: str = ""

    @property
    def batch_invariant(self) -> bool:
        """Whether batch-mates change nothing beyond 1e-5 (relative to outputs above 1)."""
        return self.max_invariance_abs_diff <= INVARIANCE_LIMIT * max(
            1.0, self.allowed_abs_diff / self.tolerance
        )

    @property
    def worst_abs_diff(self) -> float:
        """The larger of the two differences to torch, which the gate judges."""
        return max(self.max_abs_diff, self.max_batched_abs_diff)

    def allowed(self, tolerance: float) -> float:
        """The difference that another tolerance would allow."""
        return self.allowed_abs_diff / self.tolerance * tolerance

    def within(self, tolerance: float, min_agreement: float | None = None) -> bool:
        """Whether the export would pass with another tolerance, and budget of agreement."""
        wanted = self.min_agreement if min_agreement is None else min_agreement
        if self.min_agreement is not None and wanted is not None:
            agrees = self.budget_agreement >= wanted
        else:
            agrees = True
        return agrees and self.worst_abs_diff <= self.allowed(tolerance)

    def summary(self) -> str:
        """Return the report as one line for people."""
        verdict = "passed" if self.passed else "REFUSED"
        return (
            f"parity {verdict}: max |difference| {self.worst_abs_diff:.2e} "
            f"(allowed {self.allowed_abs_diff:.0e}), labels {self.label_agreement:.2%} alone and "
            f"{self.batched_label_agreement:.2%} in batches, {self.inputs} inputs of "
            f"{self.lengths[0]} to {self.lengths[-1]} {self.unit}{self._budget()}"
        )

    def _budget(self) -> str:
        if self.min_agreement is None:
            return ""
        mates = "" if self.batch_invariant else f" by {self.max_invariance_abs_diff:.1e}"
        return (
            f"; agreement {self.budget_agreement:.2%} of {self.budget_inputs} with "
            f"{self.reference} (wanted {self.min_agreement:.2%}); batch-mates "
            f"{'change nothing' if self.batch_invariant else 'change answers'}{mates}"
        )
