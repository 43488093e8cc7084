"""References, logged by the real SDK, to a real server and to real files."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry.cli.words import describe
from registry.config import Settings
from registry.errors import ConfigError, IntegrityError, NotFoundError, UnsafeContentError
from registry.pull import pull
from registry.store import Store
from registry.store.prune import Budget
from tests.backend_process import BackendProcess
from tests.e2e.registry.conftest import PROJECT, CommandLine
from tests.e2e.registry.flow import weights

LOG = """
import json, sys, wandb
wandb.init(project=sys.argv[1], name="references")
for name, references in json.loads(sys.argv[2]).items():
    artifact = wandb.Artifact(name, type="model")
    with artifact.new_file("config.json") as file:
        file.write("{}")
    for path, uri, checksum in references:
        artifact.add_reference(uri, name=path, checksum=checksum)
    wandb.run.log_artifact(artifact).wait()
wandb.finish()
"""


@dataclass
class Site:
    """What a server answers: path -> bytes, ETag or None; and where it sends others."""

    files: dict[str, tuple[bytes, str | None]] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            state.asked.append(self.path)
            found = state.files.get(self.path)
            target = state.elsewhere.get(self.path)
            self.send_response(302 if target else 200 if found else 404)
            if target:
                self.send_header("Location", target)
            if found and found[1]:
                self.send_header("ETag", found[1])
            body = found[0] if found else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("share")


@pytest.fixture(scope="module", autouse=True)
def references(
    logged: BackendProcess, site: Site, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for path, etag in {"/a/tagged": '"v1"', "/a/plain": None, "/a/moved": '"v1"'}.items():
        site.files[path] = (weights(3, 1000), etag)
    models, secret = folder / "models", folder / "secret"
    for place in (models, secret):
        place.mkdir()
        (place / "model.safetensors").write_bytes(weights(4, 1000))
    (models / "out.safetensors").symlink_to(secret / "model.safetensors")
    model = "model.safetensors"
    cases: dict[str, list[tuple[str, str, bool]]] = {
        "tagged": [(model, site.url("/a/tagged"), True)],
        "plain": [(model, site.url("/a/plain"), True)],
        "unchecked": [(model, site.url("/a/tagged"), False)],
        "moved": [(model, site.url("/a/moved"), True)],
        "gone": [(model, site.url("/a/gone"), False)],
        "local": [(model, (models / model).as_uri(), True)],
        "unchecked-local": [(model, (models / model).as_uri(), False)],
        "linked": [(model, f"file://{models}/out.safetensors", True)],
        "climbs": [(model, f"file://{models}/../secret/model.safetensors", True)],
        "metadata": [(model, "http://169.254.169.254/latest/model.safetensors", False)],
    }
    subprocess.run(
        [sys.executable, "-c", LOG, PROJECT, json.dumps(cases)],
        env=logged.env(tmp_path_factory.mktemp("home")),
        check=True,
        timeout=180,
    )
    site.files["/b/other"] = site.files.pop("/a/moved")
    site.elsewhere["/a/moved"] = site.url("/b/other")


@pytest.fixture
def settings(logged: BackendProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in logged.env(tmp_path / "home").items():
        if name.startswith("WANDB_"):
            monkeypatch.setenv(name, value)
    return Settings(
        cache_dir=tmp_path / "cache", data_dir=tmp_path / "data", entity="local", project=PROJECT,
        base_url=logged.base_url,
    )  # fmt: skip


def pulled(settings: Settings, name: str, *places: str) -> tuple[bytes, str]:
    """Return the weights, and the words that are said about them."""
    found = pull(f"{name}:v0", settings=replace(settings, allow_references=places))
    return (found.path / "model.safetensors").read_bytes(), "\n".join(describe(found))


def test_refused_unless_allowed_by_name(settings: Settings, site: Site, folder: Path) -> None:
    site.asked.clear()
    for name, allowed in {
        "tagged": ("https://127.0.0.1", "http://127.0.0.1:1/a", site.url("/b"), site.url("/a/tag")),
        "local": (f"file://{folder}/secret", f"file://{folder}/model"),
        "climbs": (f"file://{folder}/models",),
        "metadata": ("http://169.254.169.254:1",),
    }.items():
        with pytest.raises(UnsafeContentError, match="instead of holding its bytes"):
            pulled(settings, name, *allowed)
    assert not site.asked
    with pytest.raises(UnsafeContentError) as caught:
        pulled(settings, "tagged")
    assert site.url("/a") in caught.value.hint
    with pytest.raises(ConfigError):
        pulled(settings, "tagged", "ftp://host/x")


def test_a_server_with_etags(registry: CommandLine, site: Site) -> None:
    done = registry("pull", "tagged:v0", "--allow-reference", site.url("/a"))
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert (path / "model.safetensors").read_bytes() == weights(3, 1000)
    assert f"from elsewhere: {site.url('/a/tagged')}" in done.stderr
    assert "pinned" not in done.stderr
    site.asked.clear()
    assert registry("pull", "tagged:v0").stdout == done.stdout
    assert not site.asked


def test_other_bytes_than_were_logged_are_refused(settings: Settings, site: Site) -> None:
    before = site.files["/a/tagged"]
    for wrong in ((weights(5, 1000), '"v2"'), (weights(5, 1000)[:-1], '"v1"')):
        site.files["/a/tagged"] = wrong
        with pytest.raises(IntegrityError, match="not what was logged"):
            pulled(settings, "tagged", site.url("/a"))
    site.files["/a/tagged"] = before
    cache = settings.cache_dir
    assert not [*cache.glob("ingest/*"), *cache.glob("references/*"), *cache.rglob("*.safetensors")]


@pytest.mark.parametrize(("name", "path"), [("plain", "/a/plain"), ("unchecked", "/a/tagged")])
def test_what_no_digest_vouches_for_is_pinned_by_its_first_fetch(
    settings: Settings, site: Site, name: str, path: str
) -> None:
    raw, words = pulled(settings, name, site.url(path))
    assert raw == weights(3, 1000)
    assert "no digest was logged for model.safetensors" in words
    Store(settings.cache_dir, settings.base_url or "").prune(Budget(max_bytes=0))
    before = site.files[path]
    site.files[path] = (weights(6, 1000), None)
    with pytest.raises(IntegrityError, match="other bytes than when it was fetched first"):
        pulled(settings, name, site.url(path))
    site.files[path] = before
    assert pulled(settings, name, site.url(path))[0] == weights(3, 1000)


def test_redirects_stay_inside(settings: Settings, site: Site) -> None:
    with pytest.raises(UnsafeContentError, match=f"redirects to {site.url('/b/other')}"):
        pulled(settings, "moved", site.url("/a"))
    assert pulled(settings, "moved", site.url("/a"), site.url("/b"))[0] == weights(3, 1000)


def test_files_stay_beneath_the_root(settings: Settings, folder: Path) -> None:
    models = f"file://{folder}/models"
    assert pulled(settings, "local", models)[0] == weights(4, 1000)
    with pytest.raises(UnsafeContentError, match="which is not allowed"):
        pulled(settings, "linked", models)
    assert pulled(settings, "linked", models, f"file://{folder}/secret")
    raw, words = pulled(settings, "unchecked-local", models)
    assert raw == weights(4, 1000)
    assert "pinned" in words


def test_a_changed_file_is_refused(registry: CommandLine, folder: Path) -> None:
    file = folder / "models" / "model.safetensors"
    before = file.read_bytes()
    file.write_bytes(weights(7, 1000))
    done = registry("pull", "local:v0", RUNPORT_ALLOW_REFERENCES=f"file://{folder}")
    file.write_bytes(before)
    assert done.returncode == 5, done.stderr
    assert "MD5" in done.stderr


def test_what_is_gone_says_so(settings: Settings, site: Site) -> None:
    with pytest.raises(NotFoundError, match="answers 404"):
        pulled(settings, "gone", site.url("/"))
