"""The commands, on artifacts that the real SDK logged into the real backend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.registry.conftest import PROJECT, CommandLine


def test_pull_prints_the_path_alone_and_words_on_stderr(registry: CommandLine) -> None:
    done = registry("pull", "run-bert:v0")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert {file.name for file in path.iterdir()} == {"config.json", "model.safetensors"}
    assert f"local/{PROJECT}/run-bert:v0" in done.stderr
    assert "training_args.bin" in done.stderr
    quiet = registry("pull", "run-bert:v0", "-q")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")


def test_a_warm_pull_needs_no_server_and_imports_no_sdk(registry: CommandLine) -> None:
    first = registry.json("pull", "run-bert:v1")
    script = (
        "import sys, registry\n"
        "pulled = registry.pull('run-bert:v1')\n"
        "heavy = {'wandb', 'torch', 'transformers', 'httpx', 'pydantic', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(pulled.path)"
    )
    # Nothing listens there; asking would fail.
    environment = {**registry.environment, "WANDB_API_KEY": "", "http_proxy": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == first["path"]


def test_names_resolve(registry: CommandLine) -> None:
    names = {
        "run-bert:first": "run-bert:v0",
        "bert:v0": "run-bert:v0",
        f"local/{PROJECT}/run-bert:latest": "run-bert:v2",
        f"wandb-artifact:///local/{PROJECT}/run-bert:v2": "run-bert:v2",
        "run-bert:best(eval/f1)": "run-bert:v1",
        "run-bert2:final_model": "model-bert2:v1",
    }
    for name, expected in names.items():
        assert registry.json("pull", name)["name"] == f"local/{PROJECT}/{expected}", name


def test_what_cannot_be_pulled_says_why(registry: CommandLine) -> None:
    cases = {
        "run-bert2:v0": (3, "model-bert2:v1"),
        "run-bert:v9": (3, "v2"),
        "nothing": (3, "run-bert"),
        "pointer:v0": (5, "--exclude"),
        "bert-high:v0": (3, "may mean"),
        "a:b:c": (2, ":v3"),
    }
    for name, (status, words) in cases.items():
        done = registry("pull", name)
        assert done.returncode == status, (name, done.stderr)
        assert words in done.stderr, (name, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_a_table_is_no_model(registry: CommandLine) -> None:
    collections = registry.json("list")
    assert {c["collection"] for c in collections} == {
        "run-bert", "model-bert2", "by-display-name", "pointer",
    }  # fmt: skip


def test_offline(registry: CommandLine) -> None:
    assert registry("pull", "run-bert:latest", "--offline").returncode == 7
    registry("pull", "run-bert:latest")
    done = registry("pull", "run-bert:latest", RUNPORT_OFFLINE="1", WANDB_API_KEY="")
    assert done.returncode == 0, done.stderr
    assert "offline: the alias pointed here" in done.stderr


def test_a_wrong_key_and_a_server_that_is_away(registry: CommandLine) -> None:
    wrong = registry("pull", "run-bert:latest", WANDB_API_KEY="x" * 40)
    assert wrong.returncode == 4, wrong.stderr
    assert "WANDB_API_KEY" in wrong.stderr
    away = registry(
        "pull", "run-bert:latest", WANDB_BASE_URL="http://127.0.0.1:9", RUNPORT_API_TIMEOUT_S="2"
    )
    assert away.returncode == 7, away.stderr
    assert "Traceback" not in away.stderr


def test_errors_are_json_too(registry: CommandLine) -> None:
    done = registry("pull", "nothing", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["code"] == "not-found"


def test_inspect(registry: CommandLine) -> None:
    registry("pull", "run-bert:v1")
    document = registry.json("inspect", "run-bert:v1")
    assert document["run"]["name"] == "bert-high"
    assert document["metadata"]["eval/f1"] == 0.9
    assert document["cache"]["skipped"] == ["training_args.bin"]
    assert all(f["digest"].startswith("md5:") for f in document["files"])
    words = registry("inspect", "run-bert:v1", "--files").stdout
    assert "model.safetensors" in words
    assert "eval/f1 = 0.9" in words


def test_promotion_history_and_rollback(registry: CommandLine) -> None:
    assert registry.json("promote", "run-bert", "top", "--by", "eval/f1", "--dry-run")["dry_run"]
    refused = registry("promote", "run-bert", "top")
    assert refused.returncode == 2
    registry.json("promote", "run-bert:v0", "top")
    done = registry.json("promote", "run-bert", "top", "--by", "eval/f1", "--reason", "better")
    assert (done["from_version"], done["to_version"], done["moved"]) == ("v0", "v1", True)
    assert registry.json("pull", "run-bert:top")["name"].endswith(":v1")
    again = registry("promote", "run-bert", "top", "--by", "eval/f1")
    assert again.returncode == 0
    assert "already" in again.stdout
    back = registry.json("rollback", "run-bert", "top")
    assert (back["from_version"], back["to_version"]) == ("v1", "v0")
    assert registry("rollback", "run-bert", "top").returncode == 3
    _check_history(registry)


def _check_history(registry: CommandLine) -> None:
    script = (
        "import wandb, json\n"
        f"runs = wandb.Api().runs('local/{PROJECT}', filters={{'jobType': 'promotion'}})\n"
        "print(json.dumps([[dict(r.config), r.state, [a.name for a in r.used_artifacts()]]"
        " for r in runs]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=registry.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    runs = json.loads(done.stdout.splitlines()[-1])
    moves = [(c["kind"], c["from"], c["to"], state, used) for c, state, used in runs]
    assert moves == [
        ("promote", None, "v0", "finished", ["run-bert:v0"]),
        ("promote", "v0", "v1", "finished", ["run-bert:v1"]),
        ("rollback", "v1", "v0", "finished", ["run-bert:v0"]),
    ]
    assert runs[1][0]["values"] == {"v0": 0.7, "v1": 0.9, "v2": 0.8}
    assert runs[1][0]["reason"] == "better"


def test_load_records_the_use_in_an_active_run(registry: CommandLine) -> None:
    script = (
        "import json, pathlib, registry, wandb\n"
        "class Loader:\n"
        "    @classmethod\n"
        "    def from_pretrained(cls, path, **options):\n"
        "        return json.loads((pathlib.Path(path) / 'config.json').read_text()), options\n"
        "with wandb.init(job_type='training') as run:\n"
        "    config, options = registry.load('run-bert:v2', Loader)\n"
        "assert config['seed'] == 2\n"
        "assert options['local_files_only'] and not options['trust_remote_code']\n"
        f"run = wandb.Api().run(f'local/{PROJECT}/{{run.id}}')\n"
        "assert [a.name for a in run.used_artifacts()] == ['run-bert:v2']"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=registry.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
