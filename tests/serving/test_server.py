"""`registry serve` as a process: what clients get, what happens when things die or stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from huggingface_hub import InferenceClient

from tests.serving.conftest import LABELS, TinyModel
from tests.serving.server_process import ServerProcess, server_environment, server_process

TEXTS = ["a good film", "the plot was slow and dull", "wonderful music", "one", "not bad at all"]


@pytest.fixture(scope="module")
def server(
    models: tuple[TinyModel, TinyModel], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Two deployments from local folders, shared by the tests that leave it as it was."""
    home = tmp_path_factory.mktemp("server")
    # One as it was logged, whose export is in the cache; one an export itself.
    names = (f"bert={models[0].snapshot}", f"other={models[1].export}")
    cache = {"RUNPORT_CACHE_DIR": str(models[0].cache)}
    with server_process(home, *names, "--no-report", "--threads", "1", environment=cache) as server:
        yield server


def predict(server: ServerProcess, text: str | list[str], name: str = "bert") -> httpx.Response:
    return httpx.post(f"{server.url}/models/{name}", json={"inputs": text}, timeout=30)


def test_the_real_client_gets_labels(server: ServerProcess) -> None:
    client = InferenceClient(model=f"{server.url}/models/bert")
    (top,) = client.text_classification("a good film")
    assert top.label in LABELS
    every = client.text_classification("a good film", top_k=3)
    assert {element.label for element in every} == set(LABELS)
    assert sum(element.score for element in every) == pytest.approx(1)
    assert every[0].label == top.label


def test_one_and_many_agree(server: ServerProcess) -> None:
    many = predict(server, TEXTS).json()
    assert len(many) == len(TEXTS)
    for text, labels in zip(TEXTS, many, strict=True):
        (alone,) = predict(server, text).json()
        assert [item["label"] for item in alone] == [item["label"] for item in labels]
        assert alone[0]["score"] == pytest.approx(labels[0]["score"], abs=1e-5)


def test_answers_carry_version_digest_id_and_timing(server: ServerProcess) -> None:
    answer = httpx.post(
        f"{server.url}/models/bert", json={"inputs": "good"}, headers={"x-request-id": "mine-1"}
    )
    model = server.model()
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-model-version"] == model["version"]
    assert answer.headers["x-model-digest"] == model["digest"]
    stages = [part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")]
    assert stages == ["total", "tokenize", "queue", "inference", "postprocess"]
    other = httpx.get(f"{server.url}/nothing/here")
    assert other.status_code == 404
    assert other.headers["x-request-id"]
    assert "server-timing" in other.headers


def test_models_tell_their_state(server: ServerProcess) -> None:
    listed = httpx.get(f"{server.url}/models").json()["models"]
    assert [model["name"] for model in listed] == ["bert", "other"]
    assert listed[0] == server.model("bert")
    facts = {name: listed[0][name] for name in ("state", "engine", "task", "followed", "swaps")}
    assert facts == {
        "state": "ready",
        "engine": "onnx",
        "task": "text-classification",
        "followed": False,
        "swaps": 0,
    }
    assert listed[0]["reason"] == "a valid export was in the cache"
    assert listed[1]["reason"] == "the folder is an export"
    assert listed[0]["digest"] != listed[1]["digest"]


def test_unknown_models_are_told_with_the_nearest(server: ServerProcess) -> None:
    answer = predict(server, "good", name="brt")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["error_type"] == "not-found"
    assert "'bert'" in problem["hint"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "status", "detail", "error"} <= set(problem)


def test_prometheus_counts_requests(server: ServerProcess) -> None:
    predict(server, "good")
    text = httpx.get(f"{server.url}/metrics").text
    assert "runport_requests_total{" in text
    assert 'runport_ready{deployment="bert"} 1' in text


def test_the_http_process_has_no_engine_inside(server: ServerProcess) -> None:
    predict(server, "good")
    maps = Path(f"/proc/{server.process.pid}/maps").read_text("utf-8")
    for library in ("libtorch", "onnxruntime", "tokenizers", "wandb"):
        assert library not in maps, library


def run_predict(
    server_url: str, tmp_path: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "registry", "predict", *arguments, "--url", server_url],
        env=server_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_the_predict_command(server: ServerProcess, tmp_path: Path) -> None:
    done = run_predict(server.url, tmp_path, "bert", "a good film", "dull")
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 2
    assert all(label in LABELS and 0 <= float(score) <= 1 for label, score in lines)
    unknown = run_predict(server.url, tmp_path, "brt", "x", "--json")
    assert unknown.returncode == 3
    assert '"not-found"' in unknown.stdout
    refused = run_predict("http://127.0.0.1:1", tmp_path, "bert", "x")
    assert refused.returncode == 7
    assert "registry serve" in refused.stderr


def test_torch_serves_what_it_is_asked_to(
    server: ServerProcess, models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    arguments = (f"bert={models[0].snapshot}", "--engine", "torch", "--no-report")
    with server_process(tmp_path, *arguments) as torch_server:
        model = torch_server.model()
        assert model["engine"] == "torch"
        assert "--engine torch" in model["reason"]
        assert model["digest"] == server.model()["digest"]
        ours, theirs = predict(torch_server, TEXTS).json(), predict(server, TEXTS).json()
        for (mine,), (other,) in zip(ours, theirs, strict=True):
            assert mine["label"] == other["label"]
            assert mine["score"] == pytest.approx(other["score"], abs=1e-4)


def test_a_killed_worker_comes_back_and_its_version_with_it(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    arguments = (f"bert={models[0].export}", "--no-report", "--threads", "1")
    with server_process(tmp_path, *arguments) as server:
        before = server.model()
        expected = predict(server, TEXTS).json()
        statuses: Counter[int] = Counter()
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client(timeout=30) as client:
                while not stop.is_set():
                    body = {"inputs": TEXTS * 20}
                    answer = client.post(f"{server.url}/models/bert", json=body)
                    statuses[answer.status_code] += 1
                    if answer.status_code == 200:
                        assert [row[0]["label"] for row in answer.json()] == [
                            row[0]["label"] for row in expected * 20
                        ]

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            server.wait_for("http.request", status=200)
            os.kill(before["worker_pid"], signal.SIGKILL)
            server.wait_for("replica.restarted")
            server.wait_for("http.request", status=200)
            stop.set()
            for future in asking:
                future.result()
        # While there is no worker, and for what was inside its engine: 503, nothing else.
        assert set(statuses) <= {200, 503}
        assert statuses[200]
        server.until_ready()
        after = server.model()
        assert after["worker_pid"] != before["worker_pid"]
        assert after["digest"] == before["digest"]
        assert after["crashes"] == 1
        assert predict(server, TEXTS).json() == expected
        refused = [line for line in server.log if line.get("status") == 503]
        assert all(line["error_type"] in {"worker-crashed", "not-ready"} for line in refused)


def test_sigterm_under_load_loses_nothing_that_was_accepted(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    """Clients with connections kept open; what fails at them must be unknown to the server."""
    arguments = (f"bert={models[0].export}", "--no-report", "--threads", "1")
    with server_process(tmp_path, *arguments) as server:
        worker_pid = server.model()["worker_pid"]
        outcomes: dict[str, int | str] = {}
        begun = threading.Barrier(5)

        def ask(caller: int) -> None:
            with httpx.Client(timeout=30) as client:
                for number in range(100_000):
                    if number == 20:
                        begun.wait(30)
                    request_id = f"c{caller}-{number}"
                    try:
                        answer = client.post(
                            f"{server.url}/models/bert",
                            json={"inputs": TEXTS},
                            headers={"x-request-id": request_id},
                        )
                        outcomes[request_id] = answer.status_code
                    except httpx.ConnectError:
                        return
                    except httpx.TransportError as error:
                        outcomes[request_id] = type(error).__name__
                        return

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, caller) for caller in range(4)]
            begun.wait(30)
            assert server.stop() == 0
            for future in asking:
                future.result()
        known = {line["request_id"] for line in server.log if line["event"] == "http.request"}
        lost = {name for name, outcome in outcomes.items() if outcome != 200 and name in known}
        assert not lost, {name: outcomes[name] for name in lost}
        assert sum(outcome == 200 for outcome in outcomes.values()) > 80
        last = server.log[-1]
        assert last["event"] == "serve.stopped"
        assert last["accepted"] == last["answered"]
        assert not psutil.pid_exists(worker_pid)


def test_a_second_signal_exits_at_once(models: tuple[TinyModel, TinyModel], tmp_path: Path) -> None:
    arguments = (f"bert={models[0].export}", "--no-report", "--threads", "1")
    with server_process(tmp_path, *arguments) as server:
        worker_pid = server.model()["worker_pid"]
        # A stopped worker cannot answer, so that the drain has to wait.
        os.kill(worker_pid, signal.SIGSTOP)
        with ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(predict, server, "good")
            deadline = time.monotonic() + 30
            while server.model()["in_flight"] == 0:
                assert time.monotonic() < deadline
            server.process.send_signal(signal.SIGINT)
            server.wait_for("serve.draining")
            assert server.process.poll() is None
            assert server.stop(signal.SIGINT) == 128 + signal.SIGINT
            with pytest.raises(httpx.TransportError):
                hanging.result()
        psutil.wait_procs([psutil.Process(worker_pid)] if psutil.pid_exists(worker_pid) else [])
        assert not psutil.pid_exists(worker_pid)


def test_workers_die_with_a_killed_server(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    arguments = (f"bert={models[0].export}", "--no-report", "--threads", "1")
    with server_process(tmp_path, *arguments) as server:
        worker = psutil.Process(server.model()["worker_pid"])
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        assert not psutil.wait_procs([worker], timeout=30)[1]


def test_a_signal_during_the_start_calls_it_off(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    """The export takes seconds: the signal comes in the middle of it."""
    with server_process(tmp_path, f"bert={models[0].snapshot}", ready=False) as server:
        url = server.wait_for("serve.listening")["url"]
        children = psutil.Process(server.process.pid).children
        deadline = time.monotonic() + 30
        while not any("serving.prepare.child" in child.cmdline() for child in children()):
            assert time.monotonic() < deadline
        assert httpx.get(f"{url}/livez").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 503
        early = httpx.post(f"{url}/models/bert", json={"inputs": "a"})
        assert early.status_code == 503
        assert early.json()["error_type"] == "not-ready"
        assert early.headers["retry-after"]
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert server.stop() == 0
        assert not psutil.wait_procs(family, timeout=30)[1]


def ends(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    with server_process(tmp_path, *arguments, ready=False) as server:
        return server.end(), "\n".join(server.words)


def test_what_cannot_be_served_ends_the_start_with_its_cause(tmp_path: Path) -> None:
    status, words = ends(tmp_path, f"bert={tmp_path}/nowhere", "--no-report")
    assert status == 3
    assert "no folder" in words
    empty = tmp_path / "empty"
    empty.mkdir()
    status, words = ends(tmp_path, f"bert={empty}", "--no-report")
    assert status == 3
    assert "no model files" in words
    status, words = ends(tmp_path, "bert=run-bert:v0", "--offline")
    assert status == 7
    assert "offline" in words


def test_a_public_address_needs_a_key(models: tuple[TinyModel, TinyModel], tmp_path: Path) -> None:
    status, words = ends(tmp_path, f"bert={models[0].export}", "--host", "0.0.0.0")
    assert status == 2
    assert "--api-key-file" in words


def test_a_taken_port_is_told(
    server: ServerProcess, models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    status, words = ends(tmp_path, f"bert={models[0].export}", "--port", str(server.port))
    assert status == 7
    assert "--port" in words


def test_keys_open_what_their_scope_says(
    models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    key_file = tmp_path / "keys"

    def make(*scopes: str) -> dict[str, str]:
        options = [part for scope in scopes for part in ("--scope", scope)]
        done = subprocess.run(
            [sys.executable, "-m", "registry", "key", "--file", str(key_file), *options],
            env=server_environment(tmp_path),
            capture_output=True,
            text=True,
            check=True,
        )
        return {"authorization": f"Bearer {done.stdout.strip()}"}

    predicts, reads = make("predict"), make("read")
    assert key_file.stat().st_mode & 0o777 == 0o600
    arguments = (f"bert={models[0].export}", "--host", "0.0.0.0", "--no-report")
    with server_process(tmp_path, *arguments, "--api-key-file", str(key_file)) as server:
        url = f"http://127.0.0.1:{server.port}"
        body = {"inputs": "good"}
        assert httpx.get(f"{url}/livez").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 200
        nobody = httpx.post(f"{url}/models/bert", json=body)
        assert nobody.status_code == 401
        assert nobody.headers["www-authenticate"].startswith("Bearer")
        assert httpx.post(f"{url}/models/bert", json=body, headers=predicts).status_code == 200
        assert httpx.post(f"{url}/models/bert", json=body, headers=reads).status_code == 403
        for path in ("/models", "/models/bert", "/metrics", "/nothing"):
            assert httpx.get(url + path).status_code == 401, path
            assert httpx.get(url + path, headers=predicts).status_code == 403, path
            assert httpx.get(url + path, headers=reads).status_code in {200, 404}, path
        secret = predicts["authorization"].split()[1]
        wrong = {"authorization": f"Bearer {secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}"}
        assert httpx.get(f"{url}/models", headers=wrong).status_code == 401
        assert secret not in key_file.read_text("utf-8")
        assert server.stop() == 0
        assert not any(secret in line for line in server.words)
