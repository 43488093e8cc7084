"""Runs over GraphQL and `file_stream`, without a server around them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry.backend.graphql_routes import answer_operation
from registry.backend.runs.filestream import apply_message
from registry.backend.runs.lookup import named_run
from registry.backend.service import Backend
from registry.backend.storage_routes import record_blob
from registry.errors import NotFoundError

BASE_URL = "http://127.0.0.1:1"

UPSERT = """mutation($input: I!) { upsertBucket(input: $input) {
    inserted bucket { id name displayName state config tags project { id name entity { name } } }
} }"""


def ask(backend: Backend, text: str, **variables: object) -> Any:
    body = json.dumps({"query": text, "variables": variables, "operationName": ""}).encode()
    status, answer = answer_operation(backend, BASE_URL, body)
    assert status == 200, answer
    assert "errors" not in answer, answer
    return answer["data"]


def refusal(backend: Backend, text: str, **variables: object) -> str:
    body = json.dumps({"query": text, "variables": variables}).encode()
    _, answer = answer_operation(backend, BASE_URL, body)
    errors: Any = answer["errors"]
    return str(errors[0]["message"])


def upsert(backend: Backend, name: str | None = "r1", **values: object) -> Any:
    given = {"entityName": "local", "modelName": "p", "name": name, **values}
    return ask(backend, UPSERT, input=given)["upsertBucket"]


def stream(backend: Backend, name: str, message: dict[str, object]) -> None:
    with backend.database.write() as connection:
        run = named_run(connection, "local", "p", name, "local")
        assert run
        apply_message(connection, run, message)


def save_file(backend: Backend, public_run_id: str, name: str, content: bytes) -> None:
    files = ask(
        backend,
        f"""mutation {{ createRunFiles(input: {{entityName: "local", projectName: "p",
           runName: "r1", files: ["{name}"]}}) {{ runID files {{ name uploadUrl }} }} }}""",
    )["createRunFiles"]
    assert files["runID"] == public_run_id
    token = files["files"][0]["uploadUrl"].split("/")[5]
    claims = backend.signer.verify("put", token)
    record = backend.upload_kind(claims["kind"])
    assert record
    with backend.blobs.writer() as writer:
        writer.write(content)
        record_blob(backend, writer, writer.finish(), claims, record)


def stored_blobs(backend: Backend) -> list[str]:
    root = backend.settings.data_dir / "blobs"
    return [path.name for path in root.rglob("*") if path.is_file()]


def test_upsert_makes_then_changes(opened: Backend) -> None:
    made = upsert(opened, config='{"lr": {"value": 1}}', tags=["a"])
    assert made["inserted"]
    assert made["bucket"]["displayName"].endswith("-1")
    assert made["bucket"]["project"]["entity"] == {"name": "local"}
    again = upsert(opened, displayName="named", tags=[])
    assert not again["inserted"]
    assert again["bucket"]["id"] == made["bucket"]["id"]
    assert again["bucket"]["displayName"] == "named"
    assert json.loads(again["bucket"]["config"]) == {"lr": {"value": 1}}
    assert again["bucket"]["tags"] == []
    assert upsert(opened, name=None)["bucket"]["displayName"].endswith("-2")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": ".."}, "name"),
        ({"modelName": "a\0b"}, "name"),
        ({"config": "[1]"}, "configuration"),
        ({"config": "{"}, "configuration"),
        ({"summaryMetrics": "3"}, "summary"),
        ({"id": "bm9uc2Vuc2U="}, "No such run"),
    ],
)
def test_upsert_refuses(opened: Backend, values: dict[str, object], words: str) -> None:
    given = {"entityName": "local", "modelName": "p", "name": "r", **values}
    assert words in refusal(opened, UPSERT, input=given)
    with opened.database.read() as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] == 0


def test_resume_status(opened: Backend) -> None:
    text = """query($name: String!) { model(name: "p", entityName: "local") {
        bucket(name: $name, missingOk: true) { name historyLineCount historyTail eventsTail
        logLineCount wandbConfig(keys: ["t"]) } } }"""
    assert ask(opened, text, name="r1") == {"model": None}
    upsert(opened, config='{"_wandb": {"value": {"t": {"1": 2}, "m": []}}}')
    assert ask(opened, text, name="other") == {"model": {"bucket": None}}
    lines = ['{"_step": 0}', '{"_step": 5}']
    stream(opened, "r1", {"files": {"wandb-history.jsonl": {"offset": 0, "content": lines}}})
    bucket = ask(opened, text, name="r1")["model"]["bucket"]
    assert bucket["historyLineCount"] == 2
    assert json.loads(bucket["historyTail"]) == [lines[1]]
    assert json.loads(bucket["eventsTail"]) == []
    assert json.loads(bucket["wandbConfig"]) == {"t": {"1": 2}}


def test_a_deleted_run_leaves_nothing(opened: Backend) -> None:
    run_id = upsert(opened)["bucket"]["id"]
    other = upsert(opened, name="r2")["bucket"]["id"]
    save_file(opened, run_id, "a.txt", b"alone")
    save_file(opened, run_id, "dir/b.txt", b"")
    stream(opened, "r1", {"files": {"output.log": {"offset": 0, "content": ["x"]}}})
    ask(
        opened,
        """mutation { notifyScriptableRunAlert(input: {entityName: "local", projectName: "p",
           runName: "r1", title: "t", text: "x"}) { success } }""",
    )
    assert len(stored_blobs(opened)) == 2
    ask(opened, "mutation($id: ID!) { deleteRun(input: {id: $id}) { success } }", id=run_id)
    assert stored_blobs(opened) == []
    with opened.database.read() as connection:
        for table in ("run_lines", "run_files", "alerts"):
            count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            assert count == 0, table
        assert connection.execute("SELECT name FROM runs").fetchall()[0]["name"] == "r2"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert "No such run" in refusal(
        opened, "mutation($id: ID!) { deleteRun(input: {id: $id}) { success } }", id=run_id
    )
    assert upsert(opened, name="r2")["bucket"]["id"] == other


def test_an_upload_for_a_deleted_run_is_refused(opened: Backend) -> None:
    run_id = upsert(opened)["bucket"]["id"]
    claims = {"kind": "run-file", "run": 1, "name": "late.txt"}
    ask(opened, "mutation($id: ID!) { deleteRun(input: {id: $id}) { success } }", id=run_id)
    record = opened.upload_kind("run-file")
    assert record
    with opened.blobs.writer() as writer:
        writer.write(b"late")
        blob = writer.finish()
        with pytest.raises(NotFoundError):
            record_blob(opened, writer, blob, claims, record)
    assert stored_blobs(opened) == []


def test_a_replaced_file_is_collected(opened: Backend) -> None:
    run_id = upsert(opened)["bucket"]["id"]
    for content in (b"old", b"new", b"new"):
        save_file(opened, run_id, "same.txt", content)
    assert opened.collect_blobs() in (0, 1)
    assert len(stored_blobs(opened)) == 1


def test_a_deleted_project_leaves_nothing(opened: Backend) -> None:
    bucket = upsert(opened)["bucket"]
    save_file(opened, bucket["id"], "a.txt", b"content")
    text = "mutation($id: ID!) { deleteModel(input: {id: $id}) { success } }"
    assert ask(opened, text, id=bucket["project"]["id"]) == {"deleteModel": {"success": True}}
    assert stored_blobs(opened) == []
    assert ask(opened, '{ project(name: "p", entityName: "local") { id } }') == {"project": None}


def test_states_that_a_client_may_set(opened: Backend) -> None:
    run_id = upsert(opened)["bucket"]["id"]
    text = """mutation($id: ID!, $state: String!) {
        updateRunState(input: {id: $id, state: $state}) { success } }"""
    assert "cannot" in refusal(opened, text, id=run_id, state="finished")
    ask(opened, text, id=run_id, state="failed")
    ask(opened, text, id=run_id, state="pending")
    assert upsert(opened)["bucket"]["state"] == "running"


def test_stop_reaches_the_run(opened: Backend) -> None:
    run_id = upsert(opened)["bucket"]["id"]
    ask(opened, "mutation($id: ID!) { stopRun(input: {id: $id}) { success } }", id=run_id)
    text = '{ project(name: "p", entityName: "local") { run(name: "r1") { stopped state } } }'
    assert ask(opened, text)["project"]["run"] == {"stopped": True, "state": "running"}
    stream(opened, "r1", {"complete": True, "exitcode": 1})
    assert ask(opened, text)["project"]["run"]["state"] == "killed"
    # Started again, it is not stopped at once.
    upsert(opened)
    assert ask(opened, text)["project"]["run"] == {"stopped": False, "state": "running"}


def test_rewind(opened: Backend) -> None:
    upsert(opened)
    lines = [json.dumps({"_step": step, "x": step}) for step in range(10)]
    stream(opened, "r1", {"files": {"wandb-history.jsonl": {"offset": 0, "content": lines}}})
    rewound = ask(
        opened,
        """mutation { rewindRun(input: {runName: "r1", entityName: "local", projectName: "p",
           metricName: "_step", metricValue: 4}) { rewoundRun { historyLineCount } } }""",
    )
    assert rewound["rewindRun"]["rewoundRun"] == {"historyLineCount": 5}


def test_halves_of_surrogate_pairs_do_no_harm(opened: Backend) -> None:
    body = json.dumps(
        {
            "query": UPSERT,
            "variables": {"input": {"name": "r1", "modelName": "p", "displayName": "\ud800x"}},
        }
    )
    _, answer = answer_operation(opened, BASE_URL, body.encode())
    assert json.dumps(answer).count("?x") == 1


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"query": 1}', b'{"query": "{a}", "variables": []}', b"[" * 99_999]
)
def test_malformed_requests_are_refused(opened: Backend, body: bytes) -> None:
    status, answer = answer_operation(opened, BASE_URL, body)
    assert status == 400 or answer["data"] == {"a": None}
    assert "errors" in answer or status == 200


def test_a_defect_stays_opaque(opened: Backend, caplog: pytest.LogCaptureFixture) -> None:
    upsert(opened)
    message = refusal(opened, "mutation { deleteRun(input: {}) { success } }")
    assert "incident" in message
    assert "TypeError" not in message
    assert message.partition("incident ")[2][:8] in caplog.text
