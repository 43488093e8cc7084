"""Text generation through a running server: the real client, streams, clients that hang up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest
from huggingface_hub import InferenceClient

from tests.generation_models import TinyDecoders
from tests.serving.server_process import ServerProcess, server_process

URL = "/models/writer"
GREEDY = {"do_sample": False, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def server(
    tiny_decoders: TinyDecoders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    _, export = tiny_decoders.get()
    home = tmp_path_factory.mktemp("writer")
    with server_process(home, f"writer={export.path}", "--no-report", "--threads", "1") as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> InferenceClient:
    return InferenceClient(model=server.url + URL)


def post(server: ServerProcess, body: dict[str, object]) -> httpx.Response:
    return httpx.post(server.url + URL, json=body, timeout=60)


def test_the_real_client_reads_all_four_forms(client: InferenceClient) -> None:
    text = client.text_generation("the film", **GREEDY, return_full_text=False)
    detailed = client.text_generation("the film", **GREEDY, details=True)
    assert detailed.generated_text == text
    assert detailed.details is not None
    assert detailed.details.finish_reason in {"length", "eos_token"}
    assert detailed.details.generated_tokens == len(detailed.details.tokens)
    assert "".join(client.text_generation("the film", **GREEDY, stream=True)) == text
    events = list(client.text_generation("the film", **GREEDY, stream=True, details=True))
    assert [one.token.id for one in events] == [one.id for one in detailed.details.tokens]
    assert [one.generated_text for one in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1].generated_text == text
    assert events[-1].details is not None
    assert events[-1].details.generated_tokens == len(events)


def test_a_plain_answer_begins_with_the_prompt(server: ServerProcess) -> None:
    (one,) = post(server, {"inputs": "the film", "parameters": GREEDY}).json()
    assert one["generated_text"].startswith("the film")
    many = post(server, {"inputs": ["the film", "a"], "parameters": GREEDY}).json()
    assert many[0] == [one]


def test_tokens_are_counted_whether_streamed_or_not(server: ServerProcess) -> None:
    def counted(kind: str) -> float:
        text = httpx.get(f"{server.url}/metrics").text
        found = [
            one for one in text.splitlines() if one.startswith(f"runport_{kind}_tokens_total{{")
        ]
        return sum(float(one.rpartition(" ")[2]) for one in found)

    parameters = {**GREEDY, "details": True}
    answer = post(server, {"inputs": "the film", "parameters": parameters}).json()
    prompt, generated = counted("prompt"), counted("generated")
    for stream in (False, True):
        body = {"inputs": "the film", "parameters": parameters, "stream": stream}
        assert post(server, body).status_code == 200
    grown = answer["details"]["generated_tokens"]
    assert counted("generated") - generated == 2 * grown
    assert counted("prompt") - prompt > 0


def test_a_stream_that_cannot_begin_is_a_plain_error(server: ServerProcess) -> None:
    for body, status in (
        ({"inputs": "1" * 500, "stream": True}, 422),
        ({"inputs": "a", "stream": True, "parameters": {"top_p": 2}}, 422),
        ({"inputs": ["a", "b"], "stream": True}, 400),
        ({"inputs": "a", "stream": "yes"}, 400),
    ):
        answer = post(server, body)
        assert answer.status_code == status, answer.text
        assert answer.json()["hint"] is not None


def test_a_client_that_hangs_up_ends_its_answer(server: ServerProcess) -> None:
    parameters = {"do_sample": False, "max_new_tokens": 90, "min_new_tokens": 90}
    body = {"inputs": "a", "stream": True, "parameters": parameters}
    for _ in range(3):
        with httpx.stream("POST", server.url + URL, json=body, timeout=60) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-model-version"]
            line = next(answer.iter_lines())
            assert json.loads(line.removeprefix("data:"))["index"] == 1
    deadline = time.monotonic() + 20
    while httpx.get(server.url + URL).json()["in_flight"]:
        assert time.monotonic() < deadline
    assert 'stage="first_token"' in httpx.get(f"{server.url}/metrics").text
