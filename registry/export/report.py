"""The parity report: how an export compares with torch; plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How the exported graph's outputs compare with torch's (eval mode, float32).

    Every input is answered three times: by torch alone, by the export alone, and by the export in
    padded batches of mixed lengths. Differences are of logits.

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
        lengths: the different lengths in tokens, ascending.
        seconds: time that the comparison took.
        tools: versions of what made and ran the export.
        hardware: processor, cores and machine that it ran on.
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

    @property
    def worst_abs_diff(self) -> float:
        """The larger of the two differences to torch, which the gate judges."""
        return max(self.max_abs_diff, self.max_batched_abs_diff)

    def allowed(self, tolerance: float) -> float:
        """The difference that another tolerance would allow."""
        return self.allowed_abs_diff / self.tolerance * tolerance

    def within(self, tolerance: float) -> bool:
        """Whether the export would pass with another tolerance."""
        return self.worst_abs_diff <= self.allowed(tolerance)

    def summary(self) -> str:
        """Return the report as one line for people."""
        verdict = "passed" if self.passed else "REFUSED"
        return (
            f"parity {verdict}: max |difference| {self.worst_abs_diff:.2e} "
            f"(allowed {self.allowed_abs_diff:.0e}), labels {self.label_agreement:.2%} alone and "
            f"{self.batched_label_agreement:.2%} in batches, {self.inputs} inputs of "
            f"{self.lengths[0]} to {self.lengths[-1]} tokens"
        )
