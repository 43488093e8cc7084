"""`registry export` as people call it: a local folder, and a version that the SDK logged."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from registry import Export
from tests.backend_process import BackendProcess, backend_process

LOG = """
import sys, wandb
with wandb.init(project="huggingface", name="bert") as run:
    artifact = wandb.Artifact("run-bert", type="model")
    artifact.add_dir(sys.argv[1])
    run.log_artifact(artifact).wait()
"""


def run(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "registry", *arguments],
        capture_output=True,
        text=True,
        env=dict(environment),
        check=False,
    )


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "RUNPORT_CACHE_DIR": str(tmp_path / "cache")}


@pytest.fixture
def filled(tiny_export: Export, tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """A cache that has the export of `tiny_model` already."""
    shutil.copytree(tiny_export.path, tmp_path / "cache" / "exports" / tiny_export.key)
    return environment


def test_path_on_stdout_words_on_stderr(
    filled: dict[str, str], tiny_model: Path, tiny_export: Export
) -> None:
    found = run("export", str(tiny_model), environment=filled)
    assert found.returncode == 0, found.stderr
    path = Path(found.stdout.removesuffix("\n"))
    assert path.name == tiny_export.key
    assert (path / "model.onnx").is_file()
    assert "parity passed" in found.stderr
    assert "from the cache" in found.stderr
    quiet = run("export", "-q", str(tiny_model), environment=filled)
    assert (quiet.stdout, quiet.stderr) == (found.stdout, "")


def test_json_is_the_whole_record(
    filled: dict[str, str], tiny_model: Path, tiny_export: Export
) -> None:
    found = run("export", str(tiny_model), "--json", environment=filled)
    document = json.loads(found.stdout)
    assert document["cached"] is True
    assert document["key"] == tiny_export.key
    assert document["report"]["max_abs_diff"] == tiny_export.report.max_abs_diff


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--tolerance", "1e-12"), 6),
        (("--tolerance", "-1"), 2),
        (("--tolerance", "much"), 2),
        (("--timeout", "0"), 2),
        (("--task", "fortune-telling"), 2),
    ],
)
def test_exit_status(
    filled: dict[str, str], tiny_model: Path, arguments: tuple[str, ...], status: int
) -> None:
    found = run("export", str(tiny_model), *arguments, environment=filled)
    assert found.returncode == status, found.stderr
    assert found.stdout == ""
    assert "Traceback" not in found.stderr


def test_nothing_there(environment: dict[str, str], tmp_path: Path) -> None:
    assert run("export", str(tmp_path / "none"), environment=environment).returncode == 3


def test_an_error_as_json(environment: dict[str, str], tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "tokenizer.json").unlink()
    found = run("export", str(model), "--json", environment=environment)
    assert found.returncode == 1
    assert json.loads(found.stdout)["code"] == "export"


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[BackendProcess]:
    with backend_process(tmp_path / "backend") as process:
        yield process


def test_a_logged_version_is_exported_and_inspected(
    backend: BackendProcess, tiny_model: Path, tmp_path: Path
) -> None:
    cache = str(tmp_path / "cache")
    environment = backend.env(tmp_path / "home", RUNPORT_CACHE_DIR=cache)
    subprocess.run(
        [sys.executable, "-c", LOG, str(tiny_model)], env=environment, check=True,
        capture_output=True,
    )  # fmt: skip
    found = run("export", "run-bert:v0", environment=environment)
    assert found.returncode == 0, found.stderr
    assert "run-bert:v0: loading the model" in found.stderr
    assert (Path(found.stdout.strip()) / "export.json").is_file()
    shown = run("inspect", "run-bert:v0", environment=environment)
    assert "text-classification onnx fp32" in shown.stdout, shown.stderr
    assert "parity passed" in shown.stdout
    refused = run(
        "export", "run-bert:v0", "--tolerance", "1e-12", "--force", environment=environment
    )
    assert refused.returncode == 6, refused.stderr
    documents = json.loads(run("inspect", "run-bert:v0", "--json", environment=environment).stdout)
    assert sorted(export["served"] for export in documents["exports"]) == [False, True]
