"""Summaries and translations from a running server, with the real client of the inference API."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from huggingface_hub import InferenceClient

from registry import Export
from tests.serving.server_process import ServerProcess, server_process

TEXT = "the old film was long and the music was good"


@pytest.fixture(scope="module")
def server(
    seq2seq_exports: dict[str, Export], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """One server that summarises, translates and rewrites."""
    home = tmp_path_factory.mktemp("rewriting")
    names = [
        f"sum={seq2seq_exports['bart'].path}",
        f"text={seq2seq_exports['t5'].path}",
        f"tr={exported_for('translation', seq2seq_exports['t5'], home / 'translation')}",
    ]
    with server_process(home, *names, "--no-report", "--threads", "1") as running:
        yield running


def exported_for(task: str, export: Export, directory: Path) -> Path:
    """Copy an export that another task could have been exported as: the graphs are the same."""
    shutil.copytree(export.path, directory)
    record = directory / "export.json"
    record.chmod(0o600)
    record.write_text(json.dumps(json.loads(record.read_text("utf-8")) | {"task": task}), "utf-8")
    return directory


def client(server: ServerProcess, name: str) -> InferenceClient:
    return InferenceClient(model=f"{server.url}/models/{name}")


def post(server: ServerProcess, name: str, body: dict[str, object]) -> httpx.Response:
    return httpx.post(f"{server.url}/models/{name}", json=body, timeout=60)


def test_summarization(server: ServerProcess) -> None:
    found = client(server, "sum").summarization(TEXT)
    assert found.summary_text
    greedy = {"num_beams": 1, "max_new_tokens": 3}
    short = client(server, "sum").summarization(
        TEXT, generate_parameters=greedy, clean_up_tokenization_spaces=True
    )
    assert len(short.summary_text) < len(found.summary_text)
    assert post(server, "sum", {"inputs": TEXT}).json() == [{"summary_text": found.summary_text}]


def test_translation(server: ServerProcess) -> None:
    german, romanian = (
        client(server, "tr").translation(
            TEXT, src_lang="en", tgt_lang=target, generate_parameters={"min_new_tokens": 6}
        )
        for target in ("de", "ro")
    )
    assert german.translation_text != romanian.translation_text
    wrong = post(server, "tr", {"inputs": TEXT, "parameters": {"src_lang": "en", "tgt_lang": "x"}})
    assert wrong.status_code == 422
    assert "en to de" in wrong.json()["hint"]


def test_several_inputs_answer_in_one_list(server: ServerProcess) -> None:
    texts = [TEXT, "", "東京", "the " * 300]
    many = post(server, "text", {"inputs": texts, "parameters": {"max_new_tokens": 8}}).json()
    alone = [
        post(server, "text", {"inputs": text, "parameters": {"max_new_tokens": 8}}).json()[0]
        for text in texts
    ]
    assert many == alone
    drawn = {"num_beams": 1, "do_sample": True, "num_return_sequences": 2, "max_new_tokens": 4}
    pairs = post(server, "text", {"inputs": texts[:2], "parameters": drawn}).json()
    assert [len(pair) for pair in pairs] == [2, 2]


def test_requests_that_come_together_get_what_they_get_alone(server: ServerProcess) -> None:
    bodies: list[dict[str, object]] = [
        {"inputs": f"{TEXT} {number} " * (1 + number % 3), "parameters": {"max_new_tokens": limit}}
        for number, limit in enumerate((4, 30, 9, 1, 17, 25, 2, 12))
    ]
    alone = [post(server, "text", body).json() for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = [*pool.map(lambda body: post(server, "text", body).json(), bodies)]
    assert together == alone


def test_a_wrong_input_fails_alone(server: ServerProcess) -> None:
    assert post(server, "sum", {"inputs": {"text": "a"}}).status_code == 422
    assert post(server, "sum", {"inputs": "a", "parameters": {"top": 1}}).status_code == 422
    too_many = {"inputs": "a", "parameters": {"max_new_tokens": 5000}}
    assert post(server, "sum", too_many).status_code == 422
    assert post(server, "sum", {"inputs": TEXT}).status_code == 200
