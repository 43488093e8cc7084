"""The ways in which a version can be exported: which engine, in which precision; pure."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from registry.errors import UsageError

DEFAULT_ENGINE = "onnx"
DEFAULT_PRECISION = "fp32"
ANY = "auto"

_X86 = ("x86_64", "amd64")
_CPU_FACTS = Path("/proc/cpuinfo")
_DOT_PRODUCT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to export a version.

    Attributes:
        engine: what runs it: `onnx` (ONNX Runtime) or `openvino`.
        precision: of weights and arithmetic, such as `fp32` or `int8-static`.
        extra: the extra of this distribution that running it needs; empty when there is none.
        run_modules: modules that running it needs.
        make_modules: modules that making it needs besides.
        batch_invariant: whether an answer is the same to 1e-5 with any batch-mates. Each export's
            report has what was measured.
        lossy: whether answers differ from fp32's by more than rounding, so that the gate is a
            budget of agreement.
        cpu_flags: one of them the processor must have (x86 only); empty when none is needed.
    """

    engine: str
    precision: str
    extra: str = ""
    run_modules: tuple[str, ...] = ("onnxruntime",)
    make_modules: tuple[str, ...] = ()
    batch_invariant: bool = True
    lossy: bool = False
    cpu_flags: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """`engine/precision`, for people."""
        return f"{self.engine}/{self.precision}"


CANDIDATES: tuple[Candidate, ...] = (
    Candidate("onnx", "fp32"),
    Candidate(
        "onnx", "int8-dynamic",
        make_modules=("onnx",), batch_invariant=False, lossy=True, cpu_flags=_DOT_PRODUCT,
    ),
    Candidate("onnx", "int8-static", make_modules=("onnx",), lossy=True, cpu_flags=_DOT_PRODUCT),
    Candidate("openvino", "fp32", extra="openvino", run_modules=("openvino",)),
    Candidate(
        "openvino", "bf16",
        extra="openvino", run_modules=("openvino",), batch_invariant=False, lossy=True,
        cpu_flags=_BFLOAT16,
    ),
    Candidate(
        "openvino", "int8",
        extra="openvino", run_modules=("openvino",), make_modules=("onnx",),
        # Scales are fixed, but what they round differs in the last bit with the batch's shape.
        batch_invariant=False, lossy=True, cpu_flags=_DOT_PRODUCT,
    ),
)  # fmt: skip
"""Every candidate there is; the first is the default."""


def find_candidate(engine: str = ANY, precision: str = ANY) -> Candidate:
    """Return the first candidate of this engine and precision.

    Raises:
        UsageError: there is none.
    """
    for candidate in CANDIDATES:
        if engine in (ANY, candidate.engine) and precision in (ANY, candidate.precision):
            return candidate
    known = ", ".join(f"--engine {one.engine} --precision {one.precision}" for one in CANDIDATES)
    raise UsageError(
        f"There is no engine {engine!r} with the precision {precision!r}.",
        hint=f"Known: {known}.",
    )


def why_unusable(candidate: Candidate) -> str:
    """Say in a sentence why this machine cannot run the candidate; empty when it can."""
    missing = [name for name in candidate.run_modules if not _installed(name)]
    if missing:
        extra = f"[{candidate.extra}]" if candidate.extra else ""
        return f"{', '.join(missing)} is not installed (pip install 'runport{extra}')"
    on_x86 = platform.machine().lower() in _X86
    if on_x86 and candidate.cpu_flags and not candidate.cpu_flags & _cpu_flags():
        return f"the processor has none of {', '.join(sorted(candidate.cpu_flags))}"
    return ""


def usable_candidates() -> tuple[Candidate, ...]:
    """Return the candidates that this machine can run; `why_unusable` says why not the others."""
    return tuple(candidate for candidate in CANDIDATES if not why_unusable(candidate))


def why_unmakeable(candidate: Candidate) -> str:
    """Say why this machine cannot make the candidate from an fp32 export; empty when it can."""
    missing = [name for name in candidate.make_modules if not _installed(name)]
    if missing:
        return f"{', '.join(missing)} is not installed (pip install 'runport[export]')"
    return why_unusable(candidate)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@cache
def _cpu_flags() -> frozenset[str]:
    with contextlib.suppress(OSError):
        for line in _CPU_FACTS.read_text("utf-8", "replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
