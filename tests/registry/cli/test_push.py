"""push, inspect --lineage, diff and verify against a real backend, as a user runs them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from registry.diff import Difference
from registry.push import Pushed
from registry.verify import Verified
from tests.registry.cli.conftest import Shell
from tests.registry.store.models import model


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, raw in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    return folder


@pytest.fixture(scope="module")
def pushed(shell: Shell) -> dict[str, str]:
    """Two versions: version -> pinned name."""
    first = write(shell.folder / "first", {**model(1), "optimizer.pt": b"\x80\x02state"})
    second = write(
        shell.folder / "second",
        {
            "config.json": b'{"model_type": "bert", "id2label": {"0": "bad"}}',
            "model.safetensors": model(2)["model.safetensors"],
            "tokenizer.json": b"{}",
        },
    )
    note = shell.folder / "note.json"
    note.write_text('{"eval/f1": 0.5, "data": {"rows": 10}}')
    metadata = ("--metadata", f"@{note}", "--metadata", "eval/f1=0.8")
    v0 = shell.ok("push", str(first), "run-bert", "--alias", "best", *metadata)
    v1 = shell.ok("push", str(second), "run-bert", "--metadata", "eval/f1=0.9")
    return {"v0": v0, "v1": v1}


def test_the_pinned_name_is_all_that_stands_on_stdout(shell: Shell, pushed: dict[str, str]) -> None:
    assert pushed["v0"].endswith("/test-push/run-bert:v0")
    assert pushed["v1"].endswith("/test-push/run-bert:v1")
    path = Path(shell.ok("pull", "run-bert:best"))
    assert {p.name: p.read_bytes() for p in path.iterdir()} == model(1)


def test_facts_arrive(shell: Shell, pushed: dict[str, str]) -> None:
    document = json.loads(shell.ok("inspect", "run-bert:best", "--json"))
    assert document["metadata"] == {"eval/f1": 0.8, "data": {"rows": 10}}
    assert {"best"} <= set(document["aliases"])
    assert {file["path"] for file in document["files"]} == set(model(1))


def test_the_same_bytes_are_not_uploaded_again(shell: Shell, pushed: dict[str, str]) -> None:
    again = shell("push", str(shell.folder / "first"), "run-bert", "--alias", "again")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == pushed["v0"]
    assert "nothing new" in again.stderr
    document = shell.json(
        Pushed, "push", str(shell.folder / "first"), "run-bert", "--metadata", "a=1"
    )
    assert isinstance(document, Pushed)
    assert not document.created
    assert document.run_url is None
    assert {"best", "again"} <= set(document.aliases)
    assert "stay as they are" in document.warnings[0]
    versions = json.loads(shell.ok("list", "run-bert", "--json"))[0]["versions"]
    assert [version["version"] for version in versions] == ["v1", "v0"]


def test_a_dry_run_logs_nothing(shell: Shell) -> None:
    folder = write(shell.folder / "dry", model(3))
    document = shell.json(Pushed, "push", str(folder), "run-dry", "--dry-run")
    assert isinstance(document, Pushed)
    assert document.dry_run
    assert {file.path for file in document.files} == set(model(3))
    assert shell("inspect", "run-dry").returncode == 3


def test_lineage_names_the_run_that_made_it_and_those_that_used_it(
    shell: Shell, pushed: dict[str, str]
) -> None:
    base = json.loads(shell.ok("inspect", "run-bert:v0", "--lineage", "--json"))["lineage"]
    assert base["logged_by"]["job_type"] == "upload"
    run = base["logged_by"]["id"]
    folder = write(shell.folder / "third", model(4))
    document = shell.json(Pushed, "push", str(folder), "run-third", "--from-run", run)
    assert isinstance(document, Pushed)
    assert document.warnings == ()
    assert document.from_run is not None
    assert document.from_run.endswith(f"/test-push/{run}")
    shown = json.loads(shell.ok("inspect", "run-third:v0", "--json"))
    assert shown["metadata"] == {"from_run": document.from_run}
    shell.ok("promote", "run-bert:v1", "production")
    after = json.loads(shell.ok("inspect", "run-bert:v1", "--lineage", "--json"))["lineage"]
    assert [user["job_type"] for user in after["used_by"]] == ["promotion"]
    assert "used by" in shell.ok("inspect", "run-bert:v1", "--lineage")


@pytest.mark.parametrize(
    ("files", "status", "word"),
    [
        ({"pytorch_model.bin": b"\x80\x02x"}, 5, "pickle"),
        ({"config.json": b'{"auto_map": {}}', "model.safetensors": b"x"}, 5, "auto_map"),
        ({"modeling.py": b"import os"}, 5, "code"),
        ({"model.safetensors": b"\x80\x02 a pickle in disguise"}, 5, "safetensors"),
        ({}, 3, "no file"),
    ],
)
def test_unsafe_files_are_refused_before_anything_is_sent(
    shell: Shell, tmp_path: Path, files: dict[str, bytes], status: int, word: str
) -> None:
    # No server is there: the refusal needs none.
    nowhere = Shell({**shell.environment, "WANDB_BASE_URL": "http://127.0.0.1:9"}, tmp_path)
    done = nowhere("push", str(write(tmp_path, files)), "run-bad", "--json")
    assert done.returncode == status, done.stderr
    assert word in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run-bert:v3",),
        ("run bert",),
        ("run-bert", "--alias", "v3"),
        ("run-bert", "--metadata", "nothing"),
        ("run-bert", "--metadata", "@nowhere.json"),
        ("run-bert", "--from-run", "a/b/c/d"),
        ("run-bert", "--no-such-option"),
    ],
)
def test_what_cannot_be_asked_for_is_a_usage_error(
    shell: Shell, pushed: dict[str, str], arguments: tuple[str, ...]
) -> None:
    done = shell("push", str(shell.folder / "first"), *arguments, "--json")
    assert done.returncode == 2, done.stderr
    assert set(json.loads(done.stdout)) == {"code", "error", "hint"}


def test_a_collection_has_one_type(shell: Shell, pushed: dict[str, str]) -> None:
    done = shell("push", str(shell.folder / "first"), "run-bert", "--type", "dataset")
    assert done.returncode == 2
    assert "type 'model'" in done.stderr


def test_diff_shows_files_configuration_and_metrics(shell: Shell, pushed: dict[str, str]) -> None:
    found = shell.json(Difference, "diff", "run-bert:v0", "run-bert:v1")
    assert isinstance(found, Difference)
    assert (found.before, found.after) == (pushed["v0"], pushed["v1"])
    assert {(file.path, file.change) for file in found.files} == {
        ("config.json", "changed"),
        ("model.safetensors", "changed"),
        ("tokenizer.json", "added"),
    }
    assert [(v.key, v.change, v.after) for v in found.config] == [("id2label.0", "added", "bad")]
    assert ("eval/f1", 0.8, 0.9) in [(v.key, v.before, v.after) for v in found.metrics]
    words = shell.ok("diff", "run-bert:v0", "run-bert:v1")
    assert "~ eval/f1  0.8 -> 0.9" in words
    assert "+ tokenizer.json  2 B" in words
    same = shell("diff", "run-bert:v0", "run-bert:best")
    assert (same.stdout, same.returncode) == ("", 0)
    assert "No difference" in same.stderr


def test_a_local_folder_can_be_compared_and_offline_the_cached(
    shell: Shell, pushed: dict[str, str]
) -> None:
    found = shell.json(Difference, "diff", "run-bert:v0", "./first")
    assert isinstance(found, Difference)
    assert [(file.path, file.change) for file in found.files] == [("optimizer.pt", "added")]
    shell.ok("pull", "run-bert:v0")
    shell.ok("pull", "run-bert:v1")
    offline = Shell(shell.environment, shell.folder, {"RUNPORT_OFFLINE": "1"})
    assert "model.safetensors" in offline.ok("diff", "run-bert:v0", "run-bert:v1")
    assert offline("diff", "run-bert:v0", "run-third:v0").returncode == 7


def damage(path: Path) -> None:
    """Change a byte and keep size and time, as a failing disk does."""
    status = path.stat()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(raw)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_verify_finds_what_is_wrong_and_repairs_it(shell: Shell, pushed: dict[str, str]) -> None:
    path = Path(shell.ok("pull", "run-bert:v1"))
    patterns = ("--include", "*.json")
    chosen = Path(shell.ok("pull", "run-bert:v1", *patterns))
    sound = shell.json(Verified, "verify", "run-bert:v1@" + wandb_digest(shell), "--offline")
    assert isinstance(sound, Verified)
    assert sound.problems == ()
    damage(path / "config.json")
    assert chosen.joinpath("config.json").read_bytes() == path.joinpath("config.json").read_bytes()
    done = shell.json(Verified, "verify", "--all")
    assert isinstance(done, Verified)
    wrong = {(p.kind, p.files, p.repaired) for p in done.problems}
    assert wrong == {("version", ("config.json",), True)}
    assert json.loads((path / "config.json").read_bytes())["id2label"] == {"0": "bad"}
    offline = Shell(shell.environment, shell.folder, {"RUNPORT_OFFLINE": "1"})
    # The choice by patterns is there again as well.
    assert offline.ok("pull", "run-bert:v1", *patterns) == str(chosen)
    assert offline.ok("verify", "--all") == ""


def wandb_digest(shell: Shell) -> str:
    digest: str = json.loads(shell.ok("inspect", "run-bert:v1", "--json"))["digest"]
    return digest


def test_what_cannot_be_repaired_ends_with_five(shell: Shell, pushed: dict[str, str]) -> None:
    path = Path(shell.ok("pull", "run-bert:v0"))
    damage(path / "model.safetensors")
    done = shell.json(Verified, "verify", "--all", "--offline", status=5)
    assert isinstance(done, Verified)
    assert [(p.name, p.repaired) for p in done.problems] == [(pushed["v0"], False)]
    assert not path.exists()
    assert shell.ok("pull", "run-bert:v0") == str(path)
    assert shell("verify").returncode == 2
    assert shell("verify", "run-nothing:v0").returncode == 3


def test_an_adapter_is_repaired_with_its_base_model(shell: Shell, pushed: dict[str, str]) -> None:
    files = {
        "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": "some-bert"}',
        "adapter_model.safetensors": model(9)["model.safetensors"],
    }
    base = ("--metadata", "base_artifact=run-bert:v0")
    shell.ok("push", str(write(shell.folder / "adapter", files)), "run-lora", *base)
    path = Path(shell.ok("pull", "run-lora:v0"))
    damage(path / "adapter_model.safetensors")
    done = shell.json(Verified, "verify", "run-lora:v0")
    assert isinstance(done, Verified)
    # One repair mends the adapter wherever it lies, alone and with its base.
    assert [problem.repaired for problem in done.problems] == [True]
    assert shell.json(Verified, "verify", "run-lora:v0").problems == ()
    assert path.joinpath("adapter_model.safetensors").read_bytes()[-1] == 9
