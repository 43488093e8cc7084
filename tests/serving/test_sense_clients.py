"""Models that hear and see through a running server with the real client."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from huggingface_hub import InferenceClient

from registry.cli.predict import command as predict_command
from tests.serving.sense_models import SenseModels
from tests.serving.server_process import ServerProcess, server_process
from tests.serving.tasks.test_senses import Served, picture, sound

NAMES = {
    "hear": "automatic-speech-recognition",
    "tell": "audio-classification",
    "see": "image-classification",
}


@pytest.fixture(scope="module")
def server(
    sense_models: SenseModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    names = [f"{name}={sense_models.export(task).path}" for name, task in NAMES.items()]
    home = tmp_path_factory.mktemp("senses")
    with server_process(home, *names, "--no-report", "--threads", "1") as running:
        yield running


def client(server: ServerProcess, name: str) -> InferenceClient:
    return InferenceClient(model=f"{server.url}/models/{name}")


def post(server: ServerProcess, name: str, **options: object) -> httpx.Response:
    return httpx.post(f"{server.url}/models/{name}", timeout=60, **options)  # type: ignore[arg-type]


def test_the_client_hears(server: ServerProcess, sense_models: SenseModels, tmp_path: Path) -> None:
    content = sound(3, 9000)
    expected = Served(sense_models.export(NAMES["hear"]))(content)["text"]
    found = client(server, "hear")
    assert expected
    assert found.automatic_speech_recognition(content).text == expected
    for kind in ("wav", "flac"):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(sound(3, 9000, kind=kind.upper()))
        assert found.automatic_speech_recognition(path).text == expected
    timed = found.automatic_speech_recognition(content, extra_body={"return_timestamps": "char"})
    assert timed.chunks
    assert len(found.audio_classification(content, model=f"{server.url}/models/tell")) == 3
    assert len(client(server, "tell").audio_classification(content, top_k=2)) == 2


def test_the_client_sees(server: ServerProcess, tmp_path: Path) -> None:
    content = picture(1, 60, 40, "RGB")
    path = tmp_path / "a.png"
    path.write_bytes(content)
    plain = client(server, "see").image_classification(content)
    assert plain == client(server, "see").image_classification(path)
    (best,) = client(server, "see").image_classification(content, top_k=1)
    assert best == plain[0]


def test_an_answer_does_not_depend_on_its_batch(
    server: ServerProcess, sense_models: SenseModels
) -> None:
    files = [sound(number, 4000 + 320 * (number % 3)) for number in range(24)]
    served = Served(sense_models.export(NAMES["hear"]))
    expected = [served(content) for content in files]
    encoded = [base64.b64encode(content).decode() for content in files]
    assert post(server, "hear", json={"inputs": encoded}).json() == expected
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: post(server, "hear", content=one).json(), files))
    assert answers == expected
    images = [picture(number, 30 + number, 40, "RGB") for number in range(16)]
    many = {"inputs": [base64.b64encode(one).decode() for one in images]}
    together = post(server, "see", json=many).json()
    for content, found in zip(images, together, strict=True):
        for one, other in zip(post(server, "see", content=content).json(), found, strict=True):
            assert one["label"] == other["label"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "kind", "status"),
    [
        ("hear", b"nothing", "audio/wav", 422),
        ("hear", sound(1, 8000)[:9000], "application/octet-stream", 422),
        ("hear", sound(1, 8000), "image/png", 415),
        ("hear", sound(1, 8000), "text/plain", 415),
        ("see", b"nothing", "image/png", 422),
        ("see", b"{}", "application/json", 400),
        ("see", b'{"inputs": "http://127.0.0.1/a.png"}', "application/json", 422),
    ],
)
def test_bad_files(
    server: ServerProcess, name: str, content: bytes, kind: str, status: int
) -> None:
    answer = post(server, name, content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["hint"]


def test_the_command_line_sends_files(server: ServerProcess, tmp_path: Path) -> None:
    """It prints a transcript as it is, labels with their scores."""
    for name, content in (("hear", sound(3, 9000)), ("see", picture(1, 60, 40, "RGB"))):
        path = tmp_path / name
        path.write_bytes(content)
        found = CliRunner().invoke(
            predict_command, [name, "--url", server.url, "--file", str(path), "--file", str(path)]
        )
        assert found.exit_code == 0
        first, second = found.stdout.splitlines()
        assert first == second
        expected = post(server, name, content=content).json()
        assert first == expected["text"] if name == "hear" else expected[0]["label"] in first
    refused = CliRunner().invoke(predict_command, ["hear", "text", "--file", str(path)])
    assert refused.exit_code != 0


def test_a_file_that_is_too_long(server: ServerProcess) -> None:
    """It is refused before it is sent; a megabyte more than texts may have is not."""
    address = httpx.URL(server.url)
    connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=30)
    connection.putrequest("POST", "/models/see")
    connection.putheader("content-length", str(33 * 2**20))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    assert post(server, "see", content=bytes(5 * 2**20)).status_code == 422
