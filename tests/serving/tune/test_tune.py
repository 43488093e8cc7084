"""Tuning for real: workers, rounds, a choice that is kept and then served."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

import registry
from registry import Tuning, find_tuning, keep_tuning
from serving.config import CoreLimits, ServeConfig
from serving.prepare.engine import choose_engine
from serving.prepare.plan import Prepared
from serving.server import worker_plan
from tests.serving.conftest import TinyModel
from tests.serving.tune.rows import row, tuning


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """What `registry tune --json` prints."""

    name: str
    winner: registry.TuningRow
    digest: str
    task: str
    machine: dict[str, str]
    tools: dict[str, str]
    objective: str
    budget: float
    named: list[str]
    inputs: int
    inputs_from: str
    lengths: dict[str, int]
    reference: str
    rounds: int
    load_before: float
    load_after: float
    seconds: float
    created_at_s: float
    rows: list[registry.TuningRow]
    chosen: int
    why: str
    format: int


class Tuner:
    """Runs `registry tune` on a copy of a cache."""

    def __init__(self, model: TinyModel, cache: Path) -> None:
        self.model = model
        self.cache = cache
        settings = registry.Settings(cache_dir=cache, data_dir=cache)
        self.pulled = registry.pull(str(model.snapshot), settings=settings)

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "RUNPORT_CACHE_DIR": str(self.cache), "RUNPORT_OFFLINE": "1"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "registry", "tune", str(self.model.snapshot), *arguments]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def choice(self, **options: Any) -> Any:
        return choose_engine(
            self.pulled.path,
            self.pulled.digest,
            wanted=options.pop("wanted", "auto"),
            exports_dir=self.cache / "exports",
            cache_dir=self.cache,
            **options,
        )


@pytest.fixture(scope="module")
def tuner(models: tuple[TinyModel, TinyModel], tmp_path_factory: pytest.TempPathFactory) -> Tuner:
    cache = tmp_path_factory.mktemp("tuned") / "cache"
    shutil.copytree(models[0].cache, cache, symlinks=True)
    return Tuner(models[0], cache)


@pytest.fixture(scope="module")
def document(tuner: Tuner) -> Document:
    """One real tuning, of ONNX Runtime's layouts and dynamic int8."""
    done = tuner(
        *("--candidate", "onnx/fp32", "--candidate", "onnx/int8-dynamic"),
        *("--seconds", "0.5", "--budget", "0.2", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert "round 1 of" in done.stderr
    return msgspec.json.decode(done.stdout, type=Document)


@pytest.fixture
def kept(tuner: Tuner) -> Iterator[Path]:
    """The folder of measurements, as it was before afterwards."""
    folder = tuner.cache / "tuned"
    before = {path: path.read_bytes() for path in folder.glob("*")} if folder.exists() else {}
    yield folder
    for path in folder.glob("*"):
        path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def test_everything_is_measured(document: Document) -> None:
    layouts = {row.layout for row in document.rows if row.name == "onnx/fp32"}
    assert len(layouts) >= 1
    for one in document.rows:
        if one.layout is None:
            assert one.reason
            continue
        assert one.items_per_s
        assert one.items_per_s > 0
        assert one.latency_p50_ms
        assert one.latency_p95_ms
        assert one.latency_p50_ms <= one.latency_p95_ms
        assert one.growth_bytes is not None
        assert one.resident_bytes
        assert one.growth_bytes < one.resident_bytes
        assert one.speed_low
        assert one.speed
        assert one.speed_high
        assert one.speed_low <= one.speed <= one.speed_high
    assert document.inputs >= 64
    assert document.lengths["max"] == 64


def test_fp32_is_exact_and_depends_on_no_batch_mates(document: Document) -> None:
    exact = document.rows[0]
    assert exact.name == "onnx/fp32"
    assert (exact.disagreement, exact.max_score_diff) == (0.0, 0.0)
    assert exact.batch_invariant
    assert exact.batched >= 16
    assert exact.mates_disagreement == 0.0
    assert exact.mates_score_diff is not None
    assert exact.mates_score_diff <= 1e-5


def test_dynamic_int8_runs_each_row_alone(document: Document) -> None:
    rows = [one for one in document.rows if one.name == "onnx/int8-dynamic" and one.layout]
    for one in rows:
        assert one.layout is not None
        assert one.layout.max_batch_rows == 1
        assert one.batch_invariant is False


def test_the_choice_is_kept_and_served(tuner: Tuner, document: Document) -> None:
    found = find_tuning(tuner.cache, tuner.pulled.digest, "text-classification")
    assert found is not None
    assert found.stale == ""
    assert found.tuning.winner == document.winner == document.rows[document.chosen]
    choice = tuner.choice()
    assert (choice.engine, choice.precision) == (document.winner.engine, document.winner.precision)
    assert choice.directory.name == document.winner.export_key
    assert choice.layout == document.winner.layout
    assert choice.reason.startswith("tuned: ")
    # Whoever names an engine gets it.
    named = tuner.choice(wanted="onnx")
    assert (named.precision, named.layout) == ("fp32", None)


def test_a_stale_choice_is_not_used(tuner: Tuner, kept: Path) -> None:
    digest = tuner.pulled.digest
    for path in kept.glob("*"):
        path.unlink()
    assert "tune" not in tuner.choice().reason
    old = {"onnxruntime": "1.0"}
    keep_tuning(tuner.cache, tuning(digest, (row("torch/fp32"),), tools=old))
    choice = tuner.choice()
    assert (choice.engine, choice.precision, choice.layout) == ("onnx", "fp32", None)
    assert "torch/fp32, chosen by `registry tune`, is not used: the tools" in choice.reason
    gone = row("openvino/bf16", export_key=f"{digest[:32]}-0123456789abcdef")
    keep_tuning(tuner.cache, tuning(digest, (gone,)))
    choice = tuner.choice()
    assert (choice.engine, choice.precision) == ("onnx", "fp32")
    assert "its export is gone" in choice.reason


def test_a_tuned_torch_is_served(tuner: Tuner, kept: Path) -> None:
    keep_tuning(tuner.cache, tuning(tuner.pulled.digest, (row("torch/fp32"),)))
    choice = tuner.choice()
    assert (choice.engine, choice.directory) == ("torch", tuner.pulled.path)
    assert choice.layout is not None


def test_a_version_that_is_an_export_is_served_as_tuned(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    settings = registry.Settings(cache_dir=tmp_path, data_dir=tmp_path)
    pulled = registry.pull(str(models[0].export), settings=settings)
    options: dict[str, Any] = {"exports_dir": tmp_path / "exports", "cache_dir": tmp_path}
    keep_tuning(tmp_path, tuning(pulled.digest, (row(),)))
    choice = choose_engine(pulled.path, pulled.digest, wanted="auto", **options)
    assert (choice.engine, choice.directory, choice.layout) == ("onnx", pulled.path, row().layout)
    keep_tuning(tmp_path, tuning(pulled.digest, (row("openvino/fp32"),)))
    choice = choose_engine(pulled.path, pulled.digest, wanted="auto", **options)
    assert (choice.directory, choice.layout) == (pulled.path, None)
    assert "not used" in choice.reason


def test_the_worker_is_laid_out_as_measured() -> None:
    prepared = Prepared(
        *("r", "n", "d", "/dir", "text-classification", "openvino", "why", False),
        engine_threads=4,
        slots=3,
        max_batch_rows=1,
    )
    config = ServeConfig((), Path(), Path(), core=CoreLimits(slots=2, max_queue=7))
    plan = worker_plan(prepared, config)
    assert (plan.engine_threads, plan.limits.slots) == (4, 3)
    assert (plan.limits.max_batch_rows, plan.limits.max_queue) == (1, 7)
    own = ServeConfig((), Path(), Path(), core=CoreLimits(slots=2), tuned_threads=False)
    plan = worker_plan(prepared, own)
    assert (plan.engine_threads, plan.limits.slots, plan.limits.max_batch_rows) == (1, 2, 1)


def test_a_dry_run_measures_nothing(tuner: Tuner, kept: Path) -> None:
    before = sorted(kept.glob("*"))
    done = tuner("--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    planned = {one["name"]: one for one in msgspec.json.decode(done.stdout)["candidates"]}
    assert planned["onnx/fp32"]["state"] == "is exported"
    assert "only when named" in planned["onnx/int8-dynamic"]["state"] or (
        planned["onnx/int8-dynamic"]["layouts"] == []
    )
    assert sorted(kept.glob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["--budget", "1.5"], 2, "share"),
        (["--budget", "nan"], 2, "share"),
        (["--seconds", "0"], 2, "time"),
        (["--candidate", "onnx/fp8"], 2, "onnx/int8-static"),
        (["--samples", "nowhere.jsonl", "--candidate", "onnx/fp32"], 3, "nowhere.jsonl"),
        (["--task", "text-generation"], 2, "cannot be tuned yet"),
    ],
)
def test_bad_input_is_told(
    tuner: Tuner, kept: Path, arguments: list[str], status: int, word: str
) -> None:
    done = tuner(*arguments, "--json")
    assert done.returncode == status, done.stderr
    assert word in done.stdout
    assert set(msgspec.json.decode(done.stdout)) == {"code", "error", "hint"}


def test_ctrl_c_leaves_nothing(tuner: Tuner, kept: Path) -> None:
    before = {path: path.read_bytes() for path in kept.glob("*")}
    process = subprocess.Popen(
        tuner.command("--candidate", "onnx/fp32", "--seconds", "60"),
        env=dict(tuner.environment),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "round 1" not in (line := process.stderr.readline()):
        assert line, "it ended by itself"
    workers = psutil.Process(process.pid).children()
    assert workers
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in words
    assert {path: path.read_bytes() for path in kept.glob("*")} == before
    deadline = time.monotonic() + 30
    while any(worker.is_running() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_contender_that_dies_fails_alone(tuner: Tuner, kept: Path, tmp_path: Path) -> None:
    """A damaged graph: its worker cannot load it; all others are measured."""
    from serving.tune.tune import TuneRequest, tune

    cache = tmp_path / "cache"
    shutil.copytree(tuner.cache, cache, symlinks=True)
    settings = registry.Settings(cache_dir=cache, data_dir=cache)
    pulled = registry.pull(str(tuner.model.snapshot), settings=settings)
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        if "to compare with" in text:
            for export in (cache / "exports").glob("*/export.json"):
                record = msgspec.json.decode(export.read_bytes())
                graph = export.parent / "model.onnx"
                if record["precision"] == "int8-dynamic":
                    graph.chmod(0o600)
                    graph.write_bytes(b"broken")

    found: Tuning = tune(
        TuneRequest(
            *(pulled.path, pulled.digest, cache),
            budget=0.2,
            named=("onnx/int8-dynamic",),
            seconds=0.2,
            environment=tuner.environment,
        ),
        say,
    )
    broken = [one for one in found.rows if one.name == "onnx/int8-dynamic"]
    assert [one.layout for one in broken] == [None]
    assert broken[0].reason
    assert found.winner.name == "onnx/fp32"
