"""An export pushed back to W&B, and a machine without torch that pulls, serves and derives."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import Export
from tests.backend_process import BackendProcess, backend_process
from tests.serving.server_process import server_process

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnxscript", "safetensors", "peft"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
"""

LOG = """
import sys, wandb
with wandb.init(project="huggingface", name="bert") as run:
    artifact = wandb.Artifact("run-bert", type="model")
    artifact.add_dir(sys.argv[1])
    run.log_artifact(artifact).wait()
"""


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[BackendProcess]:
    with backend_process(tmp_path / "backend") as process:
        yield process


def run(*arguments: str, environment: dict[str, str]) -> Any:
    found = subprocess.run(
        [sys.executable, "-m", "registry", *arguments, "--json"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr + found.stdout
    return json.loads(found.stdout)


def without_torch(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of another machine: its own cache, and nothing that makes exports."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(BLOCK)
    paths = [str(tmp_path / "blocked"), environment.get("PYTHONPATH", "")]
    return {
        **environment,
        "RUNPORT_CACHE_DIR": str(tmp_path / "elsewhere"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def test_pushed_once_with_lineage_and_served_without_torch(
    backend: BackendProcess, tiny_model: Path, tiny_export: Export, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    here = backend.env(tmp_path / "home", RUNPORT_CACHE_DIR=str(cache))
    subprocess.run(
        [sys.executable, "-c", LOG, str(tiny_model)], env=here, check=True, capture_output=True
    )
    shutil.copytree(tiny_export.path, cache / "exports" / tiny_export.key)
    first = run("export", "run-bert:v0", "--push", environment=here)["pushed"]
    again = run("export", "run-bert:v0", "--push", environment=here)["pushed"]
    assert first["name"].endswith("/huggingface/run-bert-onnx:v0")
    assert (first["created"], again) == (True, {"name": first["name"], "created": False})
    shown = run("inspect", "run-bert-onnx:v0", "--lineage", environment=here)
    assert shown["type"] == "model"
    assert shown["lineage"]["logged_by"]["job_type"] == "export"
    assert [name.endswith("run-bert:v0") for name in shown["lineage"]["made_from"]] == [True]
    assert "onnx-fp32" in shown["aliases"]
    metadata = shown["metadata"]
    assert (metadata["engine"], metadata["precision"]) == ("onnx", "fp32")
    assert metadata["parity"]["max_abs_diff"] == tiny_export.report.max_abs_diff
    assert metadata["source"].endswith("run-bert:v0")

    there = without_torch(here, tmp_path)
    assert Path(run("pull", "run-bert-onnx", environment=there)["path"], "model.onnx").is_file()
    (tmp_path / "server").mkdir()
    with server_process(
        tmp_path / "server",
        *("bert=run-bert-onnx:onnx-fp32", "--no-report", "--follow-interval", "0"),
        environment=there,
    ) as server:
        answer = httpx.post(f"{server.url}/models/bert", json={"inputs": "a good film"}).json()
        facts = server.model("bert")
        mapped = Path(f"/proc/{facts['worker_pid']}/maps").read_text()
    assert answer[0][0]["label"] in ("bad", "fine", "good")
    assert (facts["engine"], facts["precision"]) == ("onnx", "fp32")
    assert "libtorch" not in mapped

    derived = run("export", "run-bert-onnx", "--engine", "openvino", environment=there)
    assert derived["report"]["passed"]
    assert derived["report"]["reference"] == "onnx fp32"
