"""Real exports by real child processes: good ones, bad models, crashes, races."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from registry.errors import (
    ExportError,
    GateRefusedError,
    IntegrityError,
    RegistryError,
    UsageError,
)
from registry.export import Export, find_export, find_refusal
from tests.exports import digest_of, export_directory

CACHED = """
import sys
from pathlib import Path
from registry import export_model
found = export_model(Path(sys.argv[1]), digest=sys.argv[2], exports_dir=Path(sys.argv[3]))
assert not {"torch", "transformers", "onnxruntime"} & set(sys.modules)
print(found.path)
"""

MAKE = """
import sys
from pathlib import Path
from registry import export_model
export_model(
    Path(sys.argv[1]), digest=sys.argv[2], exports_dir=Path(sys.argv[3]),
    progress=lambda text: print(text, flush=True),
)
"""


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


def visible(exports_dir: Path) -> list[str]:
    """Everything in the exports folder that is not a lock."""
    if not exports_dir.is_dir():
        return []
    return sorted(path.name for path in exports_dir.iterdir() if path.name != ".locks")


def test_the_report_says_what_was_compared(tiny_export: Export) -> None:
    report = tiny_export.report
    assert report.passed
    assert 0 < report.worst_abs_diff <= 1e-4
    assert report.max_invariance_abs_diff <= 1e-5
    assert report.label_agreement == report.batched_label_agreement == 1.0
    assert report.inputs >= 30
    assert (report.lengths[0], report.lengths[-1]) == (2, 64)
    assert report.percentiles["p50"] <= report.percentiles["p99"] <= report.max_abs_diff
    assert {"torch", "transformers", "onnxruntime", "python"} <= set(report.tools)
    assert report.hardware["processor"]
    assert "passed" in report.summary()


def test_the_graph_is_self_contained_and_names_no_place(tiny_export: Export) -> None:
    path = tiny_export.path / "model.onnx"
    graph = onnx.load(path).graph
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in graph.initializer)
    assert tiny_export.input_names == ("input_ids", "attention_mask", "token_type_ids")
    assert tiny_export.output_names == ("logits",)
    for value in graph.input:
        assert all(size.dim_param for size in value.type.tensor_type.shape.dim)
    assert b"site-packages" not in path.read_bytes()


def test_the_second_time_no_torch_is_imported(tiny_model: Path, tiny_export: Export) -> None:
    arguments = [str(tiny_model), tiny_export.digest, str(tiny_export.path.parent)]
    found = subprocess.run(
        [sys.executable, "-c", CACHED, *arguments], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(tiny_export.path)


def test_refused_then_accepted_then_refused_again(model: Path, tmp_path: Path) -> None:
    """The gate keeps the report only, refuses at once the second time, and accepts a wider one.

    The artifact's own samples take part in the comparison.
    """
    samples = [{"text": "a good film"}, {"text": "bad", "text_pair": "very bad " * 100}]
    (model / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    exports = tmp_path / "exports"
    digest = digest_of(model)
    stages: list[str] = []
    with pytest.raises(GateRefusedError, match="1e-12"):
        export_directory(model, exports, tolerance=1e-12, progress=stages.append)
    refusal = find_refusal(exports, digest)
    assert refusal is not None
    assert visible(exports) == [refusal.path.name]
    assert not refusal.report.passed
    assert refusal.report.samples == 2
    assert find_export(exports, digest) is None
    seen = len(stages)
    assert seen
    with pytest.raises(GateRefusedError):
        export_directory(model, exports, tolerance=1e-12, progress=stages.append)
    assert len(stages) == seen
    export = export_directory(model, exports, progress=stages.append)
    assert visible(exports) == [export.key]
    assert len(stages) > seen
    with pytest.raises(GateRefusedError):
        export_directory(model, exports, tolerance=1e-12)
    assert find_export(exports, digest) == export


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf")])
def test_an_impossible_tolerance(tiny_model: Path, tmp_path: Path, tolerance: float) -> None:
    with pytest.raises(UsageError):
        export_directory(tiny_model, tmp_path, tolerance=tolerance)


def edit_config(**values: object) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def edit_weights(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        path = model / "model.safetensors"
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return damage


def put_nan(weights: dict[str, np.ndarray]) -> None:
    weights["bert.encoder.layer.1.output.dense.weight"][3, 3] = np.nan


def drop_head(weights: dict[str, np.ndarray]) -> None:
    del weights["classifier.weight"]


def break_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Nothing"}}')


def bad_sample(model: Path) -> None:
    (model / "samples.jsonl").write_text('{"text": "good"}\n{"words": 1}\n')


BAD: list[tuple[str, Callable[[Path], None], type[RegistryError], str]] = [
    ("NaN weights", edit_weights(put_nan), IntegrityError, "layer.1.output.dense.weight"),
    ("no head", edit_weights(drop_head), ExportError, "classifier.weight"),
    (
        "too few labels",
        edit_config(id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}),
        ExportError,
        "classifier",
    ),
    (
        "unknown architecture",
        edit_config(model_type="daydream", architectures=["DaydreamForSequenceClassification"]),
        ExportError,
        "daydream",
    ),
    ("broken tokenizer", break_tokenizer, ExportError, "okenizer"),
    ("bad sample", bad_sample, ExportError, "Line 2"),
    (
        "far larger than its weights",
        edit_config(hidden_size=2_000_000, intermediate_size=8_000_000),
        ExportError,
        "memory|allocate|shape",
    ),
]


@pytest.mark.parametrize(("damage", "kind", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_model_is_a_clear_error_and_leaves_nothing(
    model: Path, tmp_path: Path, damage: Callable[[Path], None], kind: type, words: str
) -> None:
    damage(model)
    with pytest.raises(kind, match=words) as caught:
        export_directory(model, tmp_path / "exports")
    assert type(caught.value) is kind
    assert caught.value.hint
    assert visible(tmp_path / "exports") == []


def test_the_deadline_ends_the_child(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="longer than"):
        export_directory(tiny_model, tmp_path / "exports", timeout_s=0.5)
    assert visible(tmp_path / "exports") == []


def children_of(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(model: Path, exports: Path) -> subprocess.Popen[str]:
    arguments = [str(model), digest_of(model), str(exports)]
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_exporter_leaves_nothing_visible_and_no_child(
    tiny_model: Path, tmp_path: Path
) -> None:
    with start(tiny_model, tmp_path / "exports") as exporter:
        assert exporter.stdout is not None
        assert exporter.stdout.readline() == "loading the model\n"
        (child,) = children_of(exporter.pid)
        exporter.kill()
    wait_until(lambda: not alive(child))
    assert find_export(tmp_path / "exports", digest_of(tiny_model)) is None
    assert all(name.startswith(".staging-") for name in visible(tmp_path / "exports"))


def test_a_child_that_is_killed_is_an_error_that_says_so(tiny_model: Path, tmp_path: Path) -> None:
    with start(tiny_model, tmp_path / "exports") as exporter:
        assert exporter.stdout is not None
        assert exporter.stderr is not None
        exporter.stdout.readline()
        (child,) = children_of(exporter.pid)
        os.kill(child, signal.SIGKILL)
        words = exporter.stderr.read()
    assert exporter.returncode == 1
    assert "ExportError" in words
    assert "SIGKILL" in words
    assert visible(tmp_path / "exports") == []


def test_a_disk_that_takes_no_more_is_a_storage_error(tiny_model: Path, tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    arguments = [str(tiny_model), digest_of(tiny_model), str(exports)]
    limited = ["prlimit", "--fsize=50000", sys.executable, "-c", MAKE, *arguments]
    run = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert "StorageError" in run.stderr
    assert visible(exports) == []


def test_two_exporters_at_once_are_both_right(tiny_model: Path, tmp_path: Path) -> None:
    """One takes the lock and works, the other waits and finds the result."""
    exports = tmp_path / "exports"
    with start(tiny_model, exports) as one, start(tiny_model, exports) as other:
        outputs = [process.communicate()[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0)
    assert sorted(output.count("loading the model") for output in outputs) == [0, 1]
    export = find_export(exports, digest_of(tiny_model))
    assert export is not None
    assert visible(exports) == [export.key]


@pytest.mark.soak
def test_without_locks_two_exporters_are_both_right(tiny_model: Path, tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    with start(tiny_model, exports) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "loading the model\n"
        lock = next((exports / ".locks").iterdir())
        # As on a file system whose locks do nothing: ours is a lock on another file.
        lock.unlink()
        mine = export_directory(tiny_model, exports)
        other.communicate()
    assert other.returncode == 0
    assert find_export(exports, digest_of(tiny_model)) == mine
    assert visible(exports) == [mine.key]


def test_the_child_knows_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from registry.export import process

    monkeypatch.setenv("WANDB_API_KEY", "s" * 40)
    environment = process._environment(tmp_path)
    assert "s" * 40 not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_the_child_opens_no_connection() -> None:
    script = """
import socket, sys
from registry.export.confinement import forbid_network
sys.addaudithook(forbid_network)
try:
    socket.create_connection(("127.0.0.1", 9))
except PermissionError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "no network" in run.stdout
