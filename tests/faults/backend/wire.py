"""The SDK's protocol by hand: every method returns when the backend has acknowledged."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from tests.backend_process import BackendProcess

PROJECT = "faults"
TIMEOUT_S = 60


class RefusedError(Exception):
    """The backend answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


@dataclass(frozen=True)
class Draft:
    """A pending version and what its manifest will say: `{path: content}`."""

    id: str
    state: str
    files: Mapping[str, bytes]

    @property
    def manifest(self) -> bytes:
        contents = {
            path: {"digest": md5_base64(content), "size": len(content)}
            for path, content in self.files.items()
        }
        return manifest_of(contents)


def manifest_of(contents: object) -> bytes:
    document = {
        "version": 1,
        "storagePolicy": "wandb-storage-policy-v1",
        "storagePolicyConfig": {"storageLayout": "V2"},
        "contents": contents,
    }
    return json.dumps(document).encode()


def md5_base64(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def logical_digest(files: Mapping[str, bytes]) -> str:
    hasher = hashlib.md5(b"wandb-artifact-manifest-v1\n")
    for path, content in sorted(files.items()):
        hasher.update(f"{path}:{md5_base64(content)}\n".encode())
    return hasher.hexdigest()


class Wire:
    """One client of a backend; not shared between threads."""

    def __init__(self, backend: BackendProcess) -> None:
        # Plain HTTP: reading the system's certificates would take longer than most requests.
        self._http = httpx.Client(
            base_url=backend.base_url,
            auth=("api", backend.api_key),
            timeout=TIMEOUT_S,
            verify=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def ask(self, query: str, **variables: object) -> Any:
        answer = self._http.post("/graphql", json={"query": query, "variables": variables})
        body = answer.json()
        if answer.status_code != 200 or body.get("errors"):
            raise RefusedError(answer.status_code, answer.text)
        return body["data"]

    # Runs

    def start_run(self, run: str, project: str = PROJECT, **more: object) -> None:
        self.ask(
            "mutation($i: UpsertBucketInput!) {upsertBucket(input: $i) {bucket {id}}}",
            i={"name": run, "modelName": project, **more},
        )

    def stream(
        self,
        run: str,
        offset: int,
        rows: Sequence[Mapping[str, object]],
        *,
        project: str = PROJECT,
        **more: object,
    ) -> None:
        lines = [json.dumps(row) for row in rows]
        message = {"files": {"wandb-history.jsonl": {"offset": offset, "content": lines}}, **more}
        answer = self._http.post(f"/files/local/{project}/{run}/file_stream", json=message)
        if answer.status_code != 200:
            raise RefusedError(answer.status_code, answer.text)

    def history(self, run: str, project: str = PROJECT) -> list[dict[str, Any]]:
        data = self.ask(
            "query($p: String!, $r: String!)"
            " {project(name: $p) {run(name: $r) {history(minStep: 0)}}}",
            p=project,
            r=run,
        )
        return [json.loads(line) for line in data["project"]["run"]["history"]]

    def file_url(self, run: str, name: str, project: str = PROJECT) -> str:
        data = self.ask(
            "mutation($i: CreateRunFilesInput!) {createRunFiles(input: $i) {files {uploadUrl}}}",
            i={"projectName": project, "runName": run, "files": [name]},
        )
        return str(data["createRunFiles"]["files"][0]["uploadUrl"])

    def put(self, url: str, content: Any, **headers: str) -> httpx.Response:
        answer = self._http.put(url, content=content, headers=headers, auth=None)
        if answer.status_code != 200:
            raise RefusedError(answer.status_code, answer.text)
        return answer

    def save_file(self, run: str, name: str, content: bytes, project: str = PROJECT) -> None:
        url = self.file_url(run, name, project)
        self.put(url, content, **{"Content-MD5": md5_base64(content)})

    def run_files(self, run: str, project: str = PROJECT) -> dict[str, bytes]:
        data = self.ask(
            "query($p: String!, $r: String!) {project(name: $p) {run(name: $r)"
            " {files {edges {node {name directUrl}}}}}}",
            p=project,
            r=run,
        )
        nodes = [edge["node"] for edge in data["project"]["run"]["files"]["edges"]]
        return {node["name"]: self.get(node["directUrl"]) for node in nodes}

    def get(self, url: str) -> bytes:
        answer = self._http.get(url, auth=None)
        if answer.status_code != 200:
            raise RefusedError(answer.status_code, answer.text)
        return answer.content

    # Artifacts

    def begin(
        self,
        collection: str,
        files: Mapping[str, bytes],
        *,
        project: str = PROJECT,
        run: str | None = None,
        **more: object,
    ) -> Draft:
        data = self.ask(
            "mutation($i: CreateArtifactInput!) {createArtifact(input: $i) {artifact {id state}}}",
            i={
                "entityName": "local",
                "projectName": project,
                "runName": run,
                "artifactTypeName": "dataset",
                "artifactCollectionNames": [collection],
                "digest": logical_digest(files),
                "digestAlgorithm": "MANIFEST_MD5",
                "enableDigestDeduplication": True,
                **more,
            },
        )
        artifact = data["createArtifact"]["artifact"]
        return Draft(artifact["id"], artifact["state"], files)

    def file_targets(
        self, draft: Draft, paths: Sequence[str], parts: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """Upload URLs for files of a draft; `parts` is the input's `uploadPartsInput` by path."""
        files = [
            {
                "artifactID": draft.id,
                "name": path,
                "md5": md5_base64(draft.files[path]),
                **({"uploadPartsInput": parts[path]} if parts else {}),
            }
            for path in paths
        ]
        data = self.ask(
            "mutation($i: CreateArtifactFilesInput!) {createArtifactFiles(input: $i) {files"
            " {edges {node {storagePath uploadUrl uploadHeaders uploadMultipartUrls"
            " {uploadID uploadUrlParts {partNumber uploadUrl}} artifact {id}}}}}}",
            i={"artifactFiles": files, "storageLayout": "V2"},
        )
        return [edge["node"] for edge in data["createArtifactFiles"]["files"]["edges"]]

    def upload_files(self, draft: Draft) -> None:
        paths = list(draft.files)
        for path, node in zip(paths, self.file_targets(draft, paths), strict=True):
            if node["uploadUrl"]:
                headers = dict(header.split(":", 1) for header in node["uploadHeaders"] or ())
                self.put(node["uploadUrl"], draft.files[path], **headers)

    def upload_manifest(
        self, draft: Draft, manifest: bytes | None = None, announced: bytes | None = None
    ) -> None:
        """Send a manifest, by default the draft's own; `announced` is what the backend expects."""
        content = draft.manifest if manifest is None else manifest
        data = self.ask(
            "mutation($i: CreateArtifactManifestInput!) {createArtifactManifest(input: $i)"
            " {artifactManifest {id file {uploadUrl uploadHeaders}}}}",
            i={
                "artifactID": draft.id,
                "name": "wandb_manifest.json",
                "digest": md5_base64(content if announced is None else announced),
                "entityName": "local",
                "projectName": PROJECT,
                "runName": "",
                "type": "FULL",
            },
        )
        file = data["createArtifactManifest"]["artifactManifest"]["file"]
        headers = dict(header.split(":", 1) for header in file["uploadHeaders"] or ())
        self.put(file["uploadUrl"], content, **headers)

    def commit(self, draft: Draft) -> None:
        self.ask(
            "mutation($i: CommitArtifactInput!) {commitArtifact(input: $i) {artifact {id}}}",
            i={"artifactID": draft.id},
        )

    def complete_multipart(
        self, draft: Draft, target: Mapping[str, Any], parts: Sequence[Mapping[str, object]]
    ) -> None:
        self.ask(
            "mutation($i: CompleteMultipartUploadArtifactInput!)"
            " {completeMultipartUploadArtifact(input: $i) {digest}}",
            i={
                "completeMultipartAction": "Complete",
                "completedParts": parts,
                "artifactID": draft.id,
                "storagePath": target["storagePath"],
                "uploadID": target["uploadMultipartUrls"]["uploadID"],
            },
        )

    def log_artifact(self, collection: str, files: Mapping[str, bytes], **more: object) -> Draft:
        draft = self.begin(collection, files, **more)  # type: ignore[arg-type]
        if draft.state != "COMMITTED":
            self.upload_files(draft)
            self.upload_manifest(draft)
            self.commit(draft)
        return draft

    def versions(self, collection: str, project: str = PROJECT) -> dict[int, dict[str, Any]]:
        """Committed versions by index: `{digest, aliases, files: {path: content}}`."""
        data = self.ask(
            'query($p: String!, $c: String!) {project(name: $p, entityName: "local")'
            ' {artifactType(name: "dataset") {artifactCollection(name: $c)'
            " {artifacts(first: 1000) {edges {node {id versionIndex digest state"
            " aliases {alias} files(first: 1000) {edges {node {name directUrl}}}}}}}}}}",
            p=project,
            c=collection,
        )
        found = data["project"]["artifactType"]["artifactCollection"]
        nodes = [edge["node"] for edge in found["artifacts"]["edges"]] if found else []
        return {
            node["versionIndex"]: {
                "digest": node["digest"],
                "aliases": {alias["alias"] for alias in node["aliases"]},
                "files": {
                    edge["node"]["name"]: self.get(edge["node"]["directUrl"])
                    for edge in node["files"]["edges"]
                },
            }
            for node in nodes
        }
