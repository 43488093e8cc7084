"""One collection's life: log, read back, change, move aliases, delete."""

from __future__ import annotations

import inspect
import json
from datetime import timedelta
from pathlib import Path

import wandb
from artifact_flow import SDK, draft, log, path_of, refused, same, start, wait_for, write
from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry


def logged_and_read_back(run: wandb.Run) -> None:
    first = log(
        run,
        draft(
            "model",
            "model",
            {"weights.bin": "one", "config/a.json": "{}"},
            description="the first",
            metadata={"f1": 0.5, "tags": ["a", 1, None]},
        ),
        aliases=["latest", "best"],
        tags=["small", "two words"],
    )
    same(first.version, "v0")
    same(sorted(first.aliases), ["best", "latest"])
    same(first.state, "COMMITTED")

    read = wandb.Api().artifact(path_of("model:best"), type="model")
    same((read.id, read.digest, read.version), (first.id, first.digest, "v0"))
    same((read.description, read.metadata["f1"]), ("the first", 0.5))
    same(sorted(read.tags), ["small", "two words"])
    same((read.size, read.file_count), (5, 2))
    same(sorted(read.manifest.entries), ["config/a.json", "weights.bin"])
    same(read.created_at is not None and read.commit_hash is not None, True)
    same(read.logged_by().id, run.id)


def downloaded_and_verified() -> None:
    artifact = wandb.Api().artifact(path_of("model:v0"))
    root = Path(artifact.download(root="all"))
    same((root / "weights.bin").read_text(), "one")
    same((root / "config/a.json").read_text(), "{}")
    artifact.verify(root=str(root))
    entry = artifact.get_entry("weights.bin").download(root="single")
    same(Path(entry).read_text(), "one")
    (root / "weights.bin").write_text("two")
    with refused(ValueError):
        artifact.verify(root=str(root))
    part = Path(artifact.download(root="part", path_prefix="config"))
    same(sorted(file.name for file in part.rglob("*.*")), ["a.json"])


def files_listed() -> None:
    artifact = wandb.Api().artifact(path_of("model:v0"))
    files = list(artifact.files(per_page=1))
    same([file.name for file in files], ["config/a.json", "weights.bin"])
    named = list(artifact.files(names=["weights.bin"]))
    same([(file.name, file.size) for file in named], [("weights.bin", 3)])
    same(named[0].md5, artifact.manifest.entries["weights.bin"].digest)
    same(len(artifact.files()), 2)
    with named[0].download(root="by-file", replace=True) as file:
        same(file.read(), "one")


def deduplicated_by_digest(run: wandb.Run) -> None:
    again = log(run, draft("model", "model", {"weights.bin": "one", "config/a.json": "{}"}))
    same(again.version, "v0")
    second = log(run, draft("model", "model", {"weights.bin": "two", "config/a.json": "{}"}))
    same((second.version, second.aliases), ("v1", ["latest"]))
    same(wandb.Api().artifact(path_of("model:v0")).aliases, ["best"])


def changed_in_place() -> None:
    artifact = wandb.Api().artifact(path_of("model:v1"))
    artifact.description = "the second"
    artifact.metadata["f1"] = 0.75
    artifact.ttl = timedelta(days=3)
    artifact.tags = ["fresh"]
    artifact.aliases.append("best")
    artifact.save()
    read = wandb.Api().artifact(path_of("model:best"))
    same((read.version, read.description, read.metadata["f1"]), ("v1", "the second", 0.75))
    same(
        (read.ttl, read.tags, sorted(read.aliases)),
        (timedelta(days=3), ["fresh"], ["best", "latest"]),
    )
    same(wandb.Api().artifact(path_of("model:v0")).aliases, [])
    read.aliases.remove("best")
    read.tags = []
    read.ttl = None
    read.save()
    read = wandb.Api().artifact(path_of("model:v1"))
    same((read.aliases, read.tags, read.ttl), (["latest"], [], None))
    with refused():
        wandb.Api().artifact(path_of("model:best"))


def drafted_from_a_version(run: wandb.Run) -> None:
    grown = wandb.Api().artifact(path_of("model:v0")).new_draft()
    grown.add_file(str(write("extra.txt", "more")), "extra.txt")
    grown.remove("config/a.json")
    version = log(run, grown)
    same((version.version, sorted(version.manifest.entries)), ("v2", ["extra.txt", "weights.bin"]))
    root = Path(version.download(root="draft"))
    same((root / "weights.bin").read_text(), "one")


def merged_with_its_base(run: wandb.Run) -> None:
    log(run, draft("grows", "dataset", {"a.txt": "a", "b.txt": "b"}))
    part = draft("grows", "dataset", {"b.txt": "changed", "c.txt": "c"}, incremental=True)
    merged = log(run, part)
    read = wandb.Api().artifact(path_of(f"grows:{merged.version}"))
    same(sorted(read.manifest.entries), ["a.txt", "b.txt", "c.txt"])
    root = Path(read.download(root="merged"))
    same([(root / f"{name}.txt").read_text() for name in "abc"], ["a", "changed", "c"])


def written_by_several(run: wandb.Run) -> None:
    for part in ("one", "two"):
        artifact = draft("shared", "dataset", {f"{part}.txt": part})
        run.upsert_artifact(artifact, distributed_id="job").wait(timeout=60)
    last = draft("shared", "dataset", {"three.txt": "three"})
    run.finish_artifact(last, distributed_id="job").wait(timeout=60)
    read = wandb.Api().artifact(path_of("shared:latest"))
    same(read.version, "v0")
    same(sorted(read.manifest.entries), ["one.txt", "three.txt", "two.txt"])


def pointing_elsewhere(run: wandb.Run) -> None:
    artifact = wandb.Artifact("pointers", "dataset")
    # As `add_reference("s3://…")` does, which needs boto3 and a bucket.
    s3 = ArtifactManifestEntry(path="s3", ref="s3://bucket/key", digest="etag-1", size=3)
    artifact.manifest.add_entry(s3)
    artifact.add_reference("http://localhost:1/x", name="http", checksum=False)
    artifact.add_reference(write("local.txt", "local").as_uri(), name="file")
    saved = wandb.Api().artifact(path_of("model:v0"))
    artifact.add_reference(saved.get_entry("weights.bin").ref_url(), name="weights")
    artifact.add(wandb.Table(columns=["a"], data=[[1]]), "table")
    log(run, artifact)
    read = wandb.Api().artifact(path_of("pointers:v0"))
    same(read.manifest.entries["s3"].ref, "s3://bucket/key")
    same(read.manifest.entries["http"].ref, "http://localhost:1/x")
    same(Path(read.get_entry("file").download(root="refs")).read_text(), "local")
    same(Path(read.get_entry("weights").download(root="refs")).read_text(), "one")
    same(read.get("table").data, [[1]])


def named_while_unfinished(run: wandb.Run) -> None:
    """An artifact in another's manifest is known by its client id until it is committed."""
    source = wandb.Artifact("tables", "dataset")
    table = wandb.Table(columns=["x"], data=[[1], [2]])
    source.add(table, "t")
    run.log_artifact(source)
    holder = wandb.Artifact("holder", "dataset")
    holder.add(table, "again")
    log(run, holder)
    wait_for("tables:v0")  # nothing makes the holder wait for what it refers to
    same(wandb.Api().artifact(path_of("holder:v0")).get("again").data, [[1], [2]])


def hashed_with_xxh128(run: wandb.Run) -> None:
    artifact = draft("fast", "dataset", {"x.txt": "xxh"}, digest_algorithm="XXH128")
    log(run, artifact)
    read = wandb.Api().artifact(path_of("fast:v0"))
    same(read.manifest.entries["x.txt"].extra.get("alg"), "XXH128")
    read.verify(root=read.download(root="fast"))
    log(run, draft("fast", "dataset", {"x.txt": "again"}, digest_algorithm="XXH128"))
    same(wandb.Api().artifact(path_of("fast:v1")).digest_algorithm.value, "MANIFEST_XXH128")


def tables_and_models(run: wandb.Run) -> None:
    run.log(
        {"shown": wandb.Table(columns=["a", "b"], data=[[1, "x"]]), "h": wandb.Histogram([1, 2])}
    )
    run.log_model(str(write("saved/model.txt", "model").parent), name="kept", aliases=["good"])
    wait_for("kept:good")
    same(Path(run.use_model("kept:good")).read_text(), "model")


def table_found(run_id: str) -> None:
    table = wandb.Api().artifact(path_of(f"run-{run_id}-shown:v0"), type="run_table")
    same(table.get("shown").data, [[1, "x"]])


def growing_table() -> None:
    """An incremental table keeps its rows, in order, over a resumed run."""
    run_id = None
    for rows in ([1, 2], [3]):
        with start(id=run_id, resume="allow") as run:
            run_id = run.id
            table = wandb.Table(columns=["n"], log_mode="INCREMENTAL")
            for row in rows:
                table.add_data(row)
                run.log({"grows": table})
    kept = wandb.Api().artifact(path_of(f"run-{run_id}-incr-grows:latest"))
    same(kept.version, "v2")
    root = Path(kept.download(root="grown"))
    files = sorted(root.iterdir(), key=lambda file: file.name.partition("-")[2])
    same([json.loads(file.read_text())["data"] for file in files], [[[1]], [[2]], [[3]]])


def refused_what_is_wrong(run: wandb.Run) -> None:
    if "storage_region" in inspect.signature(wandb.Artifact).parameters:
        elsewhere = wandb.Artifact("far", "dataset", storage_region="moon-north-1")
        elsewhere.add_file(str(write("far.txt", "far")))
        with refused(Exception):
            run.log_artifact(elsewhere).wait(timeout=60)
    with refused(ValueError):
        log(run, draft("model", "another-type", {"a": "a"}))
    with refused():
        wandb.Api().artifact(path_of("model:v99"))
    with refused():
        wandb.Api().artifact(path_of("model:v0"), type="dataset")


def deleted(run: wandb.Run) -> None:
    log(run, draft("model", "model", {"weights.bin": "four"}), aliases=["latest", "live"])
    newest = wandb.Api().artifact(path_of("model:v3"))
    with refused():
        newest.delete()
    newest.delete(delete_aliases=True)
    with refused():
        wandb.Api().artifact(path_of("model:v3"))
    same(wandb.Api().artifact(path_of("model:latest")).version, "v2")
    log(run, draft("model", "model", {"weights.bin": "five"}))
    same(wandb.Api().artifact(path_of("model:latest")).version, "v4")


def main() -> None:
    run = start()
    logged_and_read_back(run)
    downloaded_and_verified()
    files_listed()
    deduplicated_by_digest(run)
    changed_in_place()
    drafted_from_a_version(run)
    merged_with_its_base(run)
    written_by_several(run)
    pointing_elsewhere(run)
    named_while_unfinished(run)
    if SDK >= (0, 29):
        hashed_with_xxh128(run)
    tables_and_models(run)
    refused_what_is_wrong(run)
    deleted(run)
    run.finish()
    table_found(run.id)
    growing_table()


if __name__ == "__main__":
    main()
