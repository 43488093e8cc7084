"""Exports derived from the fp32 one: every candidate of this machine, the gate, the samples."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

import registry
from registry import CANDIDATES, Export
from registry.errors import ExportError, GateRefusedError, NotFoundError, UsageError
from registry.export import find_export, find_refusal
from registry.export.budget import agreement_of
from registry.export.candidates import Candidate, find_candidate, why_unmakeable, why_unusable
from registry.export.store import list_records
from tests.exports import export_directory

DERIVED = [one for one in CANDIDATES[1:] if not why_unmakeable(one)]
TEXTS = ["good film", "a bad, bad plot", "one two three", "never boring", "very slow music"] * 8

WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnxscript", "safetensors"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from registry.export import derive_child
derive_child.main()
"""


@pytest.fixture
def exports(tiny_export: Export, tmp_path: Path) -> Path:
    """An exports folder that has the fp32 export, so that torch is not needed."""
    folder = tmp_path / "exports"
    shutil.copytree(tiny_export.path, folder / tiny_export.key)
    return folder


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": text, "text_pair": None}) for text in TEXTS]
    path.write_text("\n".join(lines))
    return path


def derive(model: Path, exports: Path, candidate: Candidate, **options: object) -> Export:
    return export_directory(
        model, exports, engine=candidate.engine, precision=candidate.precision, **options
    )


@pytest.mark.parametrize("candidate", DERIVED, ids=lambda one: one.name)
def test_each_candidate_is_made_found_and_reported(
    candidate: Candidate, tiny_model: Path, tiny_export: Export, exports: Path
) -> None:
    # The tiny model's weights are drawn: int8 costs it more than it costs a trained one.
    made = derive(tiny_model, exports, candidate, min_agreement=0.9 if candidate.lossy else None)
    report = made.report
    assert (made.engine, made.precision) == (candidate.engine, candidate.precision)
    assert made.digest == tiny_export.digest
    assert report.passed
    assert report.reference == "onnx fp32"
    assert (report.min_agreement is not None) == candidate.lossy
    if candidate.batch_invariant:
        assert report.batch_invariant
    found = find_export(exports, made.digest, made.task, candidate.precision, candidate.engine)
    assert found == made
    assert find_export(exports, made.digest) is not None
    stages: list[str] = []
    assert derive(tiny_model, exports, candidate, progress=stages.append) == made
    assert stages == []


def test_dynamic_int8_says_that_batch_mates_change_it(tiny_model: Path, exports: Path) -> None:
    candidate = find_candidate("onnx", "int8-dynamic")
    made = derive(tiny_model, exports, candidate, min_agreement=0.5)
    assert not candidate.batch_invariant
    assert not made.report.batch_invariant
    assert "change answers" in made.report.summary()


def test_outside_its_budget_it_is_refused_and_the_report_kept(
    tiny_model: Path, tiny_export: Export, exports: Path, samples: Path
) -> None:
    candidate = find_candidate("onnx", "int8-static")
    with pytest.raises(GateRefusedError, match="int8-static"):
        derive(tiny_model, exports, candidate, tolerance=1e-9, samples=samples)
    refusal = find_refusal(exports, tiny_export.digest, None, "int8-static", "onnx")
    assert refusal is not None
    assert not refusal.report.passed
    assert refusal.report.samples == len(TEXTS) // 2
    assert refusal.report.budget_inputs == len(TEXTS) // 2
    # Both ways of making it were tried.
    assert refusal.report.calibration == f"{len(TEXTS) // 2} samples, wide products in float"
    stages: list[str] = []
    with pytest.raises(GateRefusedError):
        derive(
            tiny_model, exports, candidate, tolerance=1e-9, samples=samples, progress=stages.append
        )
    assert stages == []
    assert len(list_records(exports, tiny_export.digest)) == 2
    assert find_export(exports, tiny_export.digest) == tiny_export_in(exports, tiny_export)


def tiny_export_in(exports: Path, export: Export) -> Export | None:
    return registry.find_export(exports, export.digest, export.task)


def test_wrong_wishes(tiny_model: Path, exports: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int3"):
        export_directory(tiny_model, exports, precision="int3")
    candidate = find_candidate("onnx", "int8-dynamic")
    with pytest.raises(UsageError, match="share"):
        derive(tiny_model, exports, candidate, min_agreement=1.5)
    with pytest.raises(NotFoundError, match="no file"):
        derive(tiny_model, exports, candidate, samples=tmp_path / "none.jsonl")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "good"}\n{"words": 1}\n')
    with pytest.raises(ExportError, match="Line 2"):
        derive(tiny_model, exports, candidate, samples=bad)


def test_what_this_machine_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = Candidate("onnx", "int8", cpu_flags=frozenset({"no_such_flag"}))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert "no_such_flag" in why_unusable(strange)
    missing = Candidate("openvino", "fp32", extra="openvino", run_modules=("no_such_module",))
    assert "runport[openvino]" in why_unusable(missing)
    assert registry.usable_candidates()[0] == CANDIDATES[0]


def test_deriving_imports_no_torch(tiny_model: Path, exports: Path, tmp_path: Path) -> None:
    """The child itself, with the import of torch and transformers blocked."""
    from registry.export.messages import DeriveRequest
    from registry.export.store import read_export

    base = next(found for path in exports.iterdir() if (found := read_export(path)))
    output = tmp_path / "output"
    output.mkdir()
    request = DeriveRequest(
        base_dir=str(base.path), output_dir=str(output), engine="onnx", precision="int8-static",
        tolerance=5.0, min_agreement=0.5, samples=None, threads=1,
        memory_limit_bytes=16 * 2**30, cpu_limit_s=300, file_limit_bytes=2**30, tools={},
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_TORCH],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(msgspec.json.encode(request) + b"\n")
        child.stdin.flush()
        lines = [json.loads(line) for line in child.stdout]
    assert lines[-1]["type"] == "Success", lines[-1]
    assert (output / "model.onnx").is_file()


def logits(*values: float) -> dict[str, np.ndarray]:
    return {"logits": np.array(values, dtype=np.float32)}


def test_near_ties_of_drawn_inputs_do_not_count_but_samples_do() -> None:
    reference = [logits(0.0, 0.1), logits(0.0, 1.0), logits(2.0, 0.0)]
    turned = [logits(0.1, 0.0), logits(0.0, 1.0), logits(2.0, 0.0)]
    batched = list(enumerate(turned))
    assert agreement_of("label", None, reference, turned, batched, 0) == (1.0, 2)
    many = reference[:1] * 16
    other = turned[:1] * 16
    assert agreement_of("label", None, many, other, list(enumerate(other)), 16) == (0.0, 16)


def test_agreement_of_the_other_kinds() -> None:
    vector = [{"last_hidden_state": np.eye(2, dtype=np.float32)}]
    assert agreement_of("direction", None, vector, vector, [(0, vector[0])], 0) == (1.0, 2)
    span = [{"start_logits": np.array([0.0, 3.0]), "end_logits": np.array([0.0, 0.1])}]
    assert agreement_of("span", None, span, span, [(0, span[0])], 0) == (1.0, 1)
    several = "multi_label_classification"
    one, other = [logits(1.0, -1.0)], [logits(1.0, 1.0)]
    assert agreement_of("label", several, one, other, [(0, other[0])], 0) == (0.5, 2)
    worse_in_batches = agreement_of("label", several, one, one, [(0, other[0])], 0)
    assert worse_in_batches == (0.5, 2)
