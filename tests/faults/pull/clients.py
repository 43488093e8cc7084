"""The two clients that the harness compares: our pull and the SDK's download.

Also a program, for trials in which the client is killed or its disk is full:

    python -m tests.faults.pull.clients CLIENT CASE.json FOLDER [no-op-locks]

Exit status 0 when the client says that all is well; then the folder it names holds the files.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from registry.config import Settings
from registry.retry import Limits
from registry.versions import ArtifactVersion, Digest, FileEntry

LIMITS = Limits(
    connections=3,
    range_bytes=2 * 1024 * 1024,
    attempts=4,
    read_timeout_s=0.5,
    first_wait_s=0.005,
    longest_wait_s=0.05,
)

_FILES = """
query($e: String!, $p: String!, $n: String!) {project(name: $p, entityName: $e)
 {artifact(name: $n) {files(first: 1000) {edges {node {name directUrl}}}}}}
"""


@dataclass(frozen=True)
class Case:
    """What is to be fetched, and from where.

    files: path -> (size in bytes, MD5 in hexadecimal, SHA-256 in hexadecimal)
    """

    base_url: str
    api_key: str
    entity: str
    project: str
    collection: str
    files: Mapping[str, tuple[int, str, str]]

    @property
    def name(self) -> str:
        return f"{self.entity}/{self.project}/{self.collection}:v0"

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.__dict__))


def load_case(path: Path) -> Case:
    document = json.loads(path.read_text())
    files = {name: tuple(facts) for name, facts in document.pop("files").items()}
    return Case(files=files, **document)


class CaseHub:
    """Of the `Hub`, what a pull of the one version of a case asks; starts without the SDK."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def default_entity(self) -> str:
        return self._case.entity

    def version(
        self, entity: str, project: str, collection: str, selector: str
    ) -> ArtifactVersion | None:
        case = self._case
        if (entity, project, collection) != (case.entity, case.project, case.collection):
            return None
        return ArtifactVersion(entity, project, collection, "v0", "0" * 32, "model", ("latest",))

    def files(self, version: ArtifactVersion) -> tuple[FileEntry, ...]:
        return tuple(
            FileEntry(path, size, Digest("md5", md5))
            for path, (size, md5, _) in self._case.files.items()
        )

    def addresses(self, version: ArtifactVersion, paths: Sequence[str]) -> dict[str, str]:
        case = self._case
        variables = {"e": case.entity, "p": case.project, "n": f"{case.collection}:v0"}
        key = base64.b64encode(f"api:{case.api_key}".encode()).decode()
        connection = http.client.HTTPConnection(urlsplit(case.base_url).netloc, timeout=30)
        with contextlib.closing(connection):
            connection.request(
                "POST",
                "/graphql",
                json.dumps({"query": _FILES, "variables": variables}),
                {"Authorization": f"Basic {key}", "Content-Type": "application/json"},
            )
            data: Any = json.loads(connection.getresponse().read())["data"]
        edges = data["project"]["artifact"]["files"]["edges"]
        found = {edge["node"]["name"]: edge["node"]["directUrl"] for edge in edges}
        return {path: found[path] for path in paths}


def pull_case(case: Case, folder: Path) -> Path:
    """Fetch with our pull; return where the files are."""
    from registry.pull import pull

    settings = Settings(folder / "cache", folder / "data", base_url=case.base_url)
    hub: Any = CaseHub(case)
    return pull(case.name, settings=settings, hub=hub, limits=LIMITS).path


def download_case(case: Case, folder: Path) -> Path:
    """Fetch with the SDK; its cache must have been pointed beneath `folder` before its import."""
    import wandb

    api = wandb.Api(overrides={"base_url": case.base_url}, api_key=case.api_key, timeout=30)
    return Path(api.artifact(case.name).download(str(folder / "taken")))


def without_locks() -> None:
    """Make locks do nothing, as some network file systems do."""
    import registry.store.locks

    registry.store.locks.single_flight = lambda *_, **__: contextlib.nullcontext(True)  # type: ignore[assignment]


CLIENTS = {"pull": pull_case, "sdk": download_case}


def main() -> int:
    client, case, folder = sys.argv[1], load_case(Path(sys.argv[2])), Path(sys.argv[3])
    if "no-op-locks" in sys.argv:
        without_locks()
    try:
        sys.stdout.write(f"{CLIENTS[client](case, folder)}\n")
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # The SDK's service would be waited for; what it does is not what is tested.
    os._exit(status)
