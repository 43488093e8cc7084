"""Who gets in: the key, signed URLs, loopback names, and no foreign pages."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar

from registry.backend.app import create_app
from registry.backend.parts import default_parts
from registry.backend.service import open_backend
from registry.backend.settings import BackendSettings
from registry.backend.signing import UrlSigner
from tests.backend_process import BackendProcess, backend_process
from tests.faults.backend.wire import Wire

PUBLIC = {
    "/healthz": "tells only that the server is there",
    "/ready": "the same",
    "/storage/upload/{token}": "the signed URL is the right",
    "/storage/upload/{token}/{name}": "the signed URL is the right",
    "/storage/blob/{token}": "the signed URL is the right",
    "/storage/blob/{token}/{name}": "the signed URL is the right",
    "/_runport/style.css": "the same for everybody",
    "/": "page",
    "/{entity}": "page",
    "/{entity}/{project}": "page",
    "/{entity}/{project}/overview": "page",
    "/{entity}/{project}/workspace": "page",
    "/{entity}/{project}/runs/{run}": "page",
    "/{entity}/{project}/runs/{run}/{tab}": "page",
    "/{entity}/{project}/artifacts/{kind}/{collection}": "page",
    "/{entity}/{project}/artifacts/{kind}/{collection}/{version}": "page",
    "/{entity}/{project}/artifacts/{kind}/{collection}/{version}/{tab}": "page",
}
"""Reviewed: routes that answer without a key, each with the reason.

Pages are read-only, on loopback names alone, and run no script: see `docs/backend-pages.md`.
"""

CONTENT = b"what only the key's holder may read"


@pytest.fixture(scope="module")
def urls(sturdy: BackendProcess) -> dict[str, str]:
    """Signed URLs of a stored file: `put`, `get` and the `get` of `other`."""
    with Wire(sturdy) as wire:
        wire.start_run("signed")
        wire.save_file("signed", "kept.txt", CONTENT)
        wire.save_file("signed", "other.txt", b"other")
        data = wire.ask(
            'query {project(name: "faults") {run(name: "signed")'
            ' {files(names: ["kept.txt", "other.txt"]) {edges {node {directUrl}}}}}}'
        )
        edges = data["project"]["run"]["files"]["edges"]
        return {
            "put": wire.file_url("signed", "kept.txt"),
            "get": edges[0]["node"]["directUrl"],
            "other": edges[1]["node"]["directUrl"],
        }


@pytest.fixture(scope="module")
def plain() -> Iterator[httpx.Client]:
    """A client without a key, which reads no certificates."""
    with httpx.Client(verify=False, timeout=60) as client:
        yield client


def _application(folder: Path) -> Iterator[Litestar]:
    with open_backend(BackendSettings(data_dir=folder), default_parts()) as backend:
        yield create_app(backend)


def _routes(folder: Path) -> list[tuple[str, str]]:
    """Every (method, path) of the application, by its own list."""
    for application in _application(folder):
        return [
            (method, route.path_format)
            for route in application.routes
            for method in sorted(getattr(route, "methods", ()))
            if method != "OPTIONS"
        ]
    return []


def test_every_route_asks_for_the_key(sturdy: BackendProcess, tmp_path: Path) -> None:
    routes = _routes(tmp_path / "routes")
    paths = {path for _, path in routes}
    assert {"/graphql", "/files/{entity}/{project}/{run}/file_stream"} <= paths
    guarded = [(method, path) for method, path in routes if path not in PUBLIC]
    public = {(method, path) for method, path in routes if path in PUBLIC}
    assert {path for method, path in public if method not in ("GET", "HEAD")} == {
        "/storage/upload/{token}",
        "/storage/upload/{token}/{name}",
    }
    assert len(guarded) >= 3
    wrong = sturdy.api_key[:-1] + ("a" if sturdy.api_key[-1] != "a" else "b")
    attempts = (
        None,
        ("api", wrong),
        ("api", ""),
        ("root", sturdy.api_key),
        ("api", sturdy.api_key.upper()),
        ("api", f"{sturdy.api_key} "),
    )
    with httpx.Client(base_url=sturdy.base_url) as client:
        for method, path in guarded:
            concrete = re.sub(r"\{[^}]*\}", "x", path)
            for auth in attempts:
                answer = client.request(method, concrete, auth=auth, content=b"{}")
                assert answer.status_code == 401, (method, path, auth and auth[0])
                assert sturdy.api_key not in answer.text


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !!!", "Basic YXBp", "Bearer", "Bearer x", "Basic Og==", "Digest x"],
)
def test_malformed_credentials_are_refused(sturdy: BackendProcess, header: str) -> None:
    answer = httpx.post(
        f"{sturdy.base_url}/graphql", content=b"{}", headers={"authorization": header}
    )
    assert answer.status_code == 401


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_url_opens_nothing(
    plain: httpx.Client, urls: dict[str, str], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["get", "put"]))
    prefix, token, name = re.fullmatch(r"(.*/storage/\w+/)([^/]+)(/.*)", urls[kind]).groups()  # type: ignore[union-attr]
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(
        st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.=~!%20")
    )
    change = data.draw(st.sampled_from(["replace", "insert", "delete", "swap"]))
    if change == "replace":
        forged = token[:place] + letter + token[place + 1 :]
    elif change == "insert":
        forged = token[:place] + letter + token[place:]
    elif change == "delete":
        forged = token[:place] + token[place + 1 :]
    else:
        forged = token[:place] + token[place : place + 2][::-1] + token[place + 2 :]
    if forged == token:
        return
    answer = plain.request("GET" if kind == "get" else "PUT", prefix + forged + name, content=b"x")
    assert answer.status_code in (403, 404), answer.text
    assert CONTENT not in answer.content


def test_a_url_is_good_for_its_purpose_alone(sturdy: BackendProcess, urls: dict[str, str]) -> None:
    token = {kind: urlsplit(url).path.split("/")[3] for kind, url in urls.items()}
    base = f"{sturdy.base_url}/storage"
    assert httpx.get(f"{base}/blob/{token['put']}/x").status_code == 403
    assert httpx.put(f"{base}/upload/{token['get']}/x", content=b"x").status_code == 403
    spliced = f"{token['other'].split('.')[0]}.{token['get'].split('.')[1]}"
    assert httpx.get(f"{base}/blob/{spliced}/x").status_code == 403
    assert httpx.put(urls["get"], content=b"x").status_code == 405
    assert httpx.get(urls["get"]).content == CONTENT


def test_a_name_in_a_url_is_decoration(urls: dict[str, str]) -> None:
    renamed = urls["get"].rsplit("/", 1)[0] + "/evil.html"
    answer = httpx.get(renamed)
    assert answer.content == CONTENT
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_expired_and_foreign_urls_are_refused(
    sturdy: BackendProcess, urls: dict[str, str], tmp_path: Path
) -> None:
    secret = bytes.fromhex(
        json.loads((sturdy.data_dir / "credentials.json").read_text())["signing_secret"]
    )
    sha256 = hashlib.sha256(CONTENT).hexdigest()

    def status(signer: UrlSigner) -> int:
        return httpx.get(signer.download_url(sturdy.base_url, sha256, "x")).status_code

    assert status(UrlSigner(secret, 60)) == 200
    assert status(UrlSigner(secret, 0)) == 403
    assert status(UrlSigner(b"x" * 32, 60)) == 403
    expired = UrlSigner(secret, -1).upload_url(sturdy.base_url, "run-file", {"run": 1}, "x")
    assert httpx.put(expired, content=b"x").status_code == 403
    unknown = UrlSigner(secret, 60).upload_url(sturdy.base_url, "no-such-kind", {}, "x")
    assert httpx.put(unknown, content=b"x").status_code == 403
    for claim in ("../credentials.json", "", "z" * 64, sha256.upper(), f"{sha256}\n"):
        signed = UrlSigner(secret, 60).download_url(sturdy.base_url, claim, "x")
        assert httpx.get(signed).status_code == 404
    with backend_process(tmp_path / "elsewhere") as other:
        moved = urls["get"].replace(sturdy.base_url, other.base_url)
        assert httpx.get(moved).status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:80",
        "localhost:80@evil.example",
        "[::1]evil.example",
        "0.0.0.0",
        "169.254.169.254",
        "2130706433",
        "",
    ],
)
def test_a_rebound_name_is_refused(sturdy: BackendProcess, urls: dict[str, str], host: str) -> None:
    key = base64.b64encode(f"api:{sturdy.api_key}".encode()).decode()
    with httpx.Client(headers={"host": host, "authorization": f"Basic {key}"}) as client:
        read = client.get(urls["get"])
        asked = client.post(f"{sturdy.base_url}/graphql", json={"query": "{viewer{id}}"})
    assert {read.status_code, asked.status_code} <= {400, 421}
    assert CONTENT not in read.content
    assert "VXNl" not in asked.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1", "[::1]:9", "127.9.9.9"])
def test_loopback_names_are_served(sturdy: BackendProcess, host: str) -> None:
    assert httpx.get(f"{sturdy.base_url}/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", None])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_foreign_page_changes_nothing(
    sturdy: BackendProcess, urls: dict[str, str], origin: str, content_type: str | None
) -> None:
    """Even with the key, which a browser adds by itself once the user has typed it."""
    headers = {"origin": origin, **({"content-type": content_type} if content_type else {})}
    mutation = 'mutation {upsertBucket(input: {name: "forged"}) {inserted}}'
    with httpx.Client(base_url=sturdy.base_url, auth=("api", sturdy.api_key)) as client:
        answer = client.post("/graphql", content=json.dumps({"query": mutation}), headers=headers)
        assert answer.status_code == 403
        assert client.put(urls["put"], content=b"x", headers=headers).status_code == 403
        read = client.get(urls["get"], headers=headers)
        assert "access-control-allow-origin" not in {**answer.headers, **read.headers}
        preflight = client.options("/graphql", headers=headers)
        assert "access-control-allow-origin" not in preflight.headers


def test_its_own_page_may_ask(sturdy: BackendProcess) -> None:
    with httpx.Client(base_url=sturdy.base_url, auth=("api", sturdy.api_key)) as client:
        answer = client.post(
            "/graphql", json={"query": "{viewer{id}}"}, headers={"origin": sturdy.base_url}
        )
    assert answer.status_code == 200


def test_an_error_tells_nothing_of_the_inside(sturdy: BackendProcess) -> None:
    """Broken requests get an answer that names no file, no line and no key."""
    bodies: list[bytes] = [
        b"",
        b"\xff",
        b"[]",
        b'{"query": 1}',
        b'{"query": "{"}',
        b'{"query": "{viewer{id}}", "variables": []}',
        b'{"query": "mutation{upsertBucket(input:{name:[1]}){inserted}}"}',
        b'{"query": "mutation{upsertBucket(input:{name:\\"\\ud800\\"}){inserted}}"}',
        b'{"query": "{project(name: 7){run(name: {a: 1}){id}}}"}',
        b'{"query": "' + b"{a" * 3000 + b'"}',
        b"[" * 100_000,
    ]
    with httpx.Client(base_url=sturdy.base_url, auth=("api", sturdy.api_key)) as client:
        for body in bodies:
            answer = client.post("/graphql", content=body)
            assert answer.status_code in (200, 400), (body[:60], answer.status_code)
            assert answer.json().keys() & {"errors", "data"}
            for secret in (sturdy.api_key, str(sturdy.data_dir), "Traceback", ".py", "sqlite"):
                assert secret not in answer.text, (body[:60], answer.text)
        assert client.post("/graphql", json={"query": "{viewer{id}}"}).status_code == 200


def test_a_second_backend_on_the_folder_is_refused(sturdy: BackendProcess) -> None:
    second = BackendProcess(sturdy.data_dir)
    with pytest.raises(RuntimeError, match="did not start"):
        second.start()
    with Wire(sturdy) as wire:
        assert wire.ask("{viewer {id}}")["viewer"]
