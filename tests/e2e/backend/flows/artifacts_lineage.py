"""Who made and used what; listings; links into portfolios and registries."""

from __future__ import annotations

import wandb
from artifact_flow import ENTITY, PROJECT, SDK, draft, log, path_of, refused, same, start


def produced_and_used() -> tuple[str, str]:
    with start(job_type="train") as maker:
        for f1 in (0.1, 0.2, 0.3):
            log(maker, draft("model", "model", {"w.bin": str(f1)}, metadata={"f1": f1}))
        log(maker, draft("data", "dataset", {"d.csv": "1,2"}))
        maker.config["input"] = wandb.Api().artifact(path_of("data:v0"))
    with start(job_type="serve", config={"own": 1}) as user:
        used = user.use_artifact("model:v1")
        user.use_artifact(path_of("data:latest"), type="dataset")
        same(used.version, "v1")
    return maker.id, user.id


def lineage_both_ways(maker: str, user: str) -> None:
    api = wandb.Api()
    model = api.artifact(path_of("model:v1"))
    same([run.id for run in model.used_by()], [user])
    same(model.logged_by().id, maker)
    run = api.run(path_of(user))
    same({a.name for a in run.used_artifacts()}, {"model:v1", "data:v0"})
    same(len(run.used_artifacts(per_page=1)), 2)
    same(list(run.logged_artifacts()), [])
    made = api.run(path_of(maker))
    names = [artifact.name for artifact in made.logged_artifacts(per_page=2)]
    same(sorted(names), ["data:v0", "model:v0", "model:v1", "model:v2"])
    run.log_artifact(api.artifact(path_of("model:v0")), aliases=["adopted"])
    same([a.name for a in api.run(path_of(user)).logged_artifacts()], ["model:v0"])
    same(api.artifact(path_of("model:adopted")).version, "v0")
    run.use_artifact(api.artifact(path_of("model:v2")))
    same([r.id for r in api.artifact(path_of("model:v2")).used_by()], [user])
    reference = made.config["input"]
    same(reference["_type"], "artifactVersion")


def listed() -> None:
    api = wandb.Api()
    types = {kind.name for kind in api.artifact_types(f"{ENTITY}/{PROJECT}")}
    same(types >= {"model", "dataset"}, True)
    same(api.artifact_type("model", f"{ENTITY}/{PROJECT}").name, "model")
    collections = list(api.artifact_collections(f"{ENTITY}/{PROJECT}", "model"))
    same([collection.name for collection in collections], ["model"])
    versions = [a.version for a in api.artifacts("model", path_of("model"), per_page=2)]
    same(versions, ["v2", "v1", "v0"])
    for order in ("version_index", "+version_index"):
        found = api.artifacts("model", path_of("model"))
        found.variables["order"] = order
        same([a.version for a in found], ["v0", "v1", "v2"])
    same(len(api.artifacts("model", path_of("model"))), 3)
    tagged = api.artifact(path_of("model:v1"))
    tagged.tags = ["chosen"]
    tagged.save()
    chosen = api.artifacts("model", path_of("model"), tags=["chosen"])
    same([artifact.version for artifact in chosen], ["v1"])
    same(api.artifact_exists(path_of("model:v2")), True)
    same(api.artifact_exists(path_of("model:v7")), False)
    same(api.artifact_exists(path_of("nothing:v0")), False)
    same(api.artifact_collection_exists(path_of("model"), "model"), True)
    same(api.artifact_collection_exists(path_of("nothing"), "model"), False)


def collections_changed() -> None:
    api = wandb.Api()
    collection = api.artifact_collection("dataset", path_of("data"))
    same((collection.is_sequence(), collection.aliases), (True, ["latest"]))
    collection.name = "renamed"
    collection.description = "what it is"
    collection.tags = ["raw", "small"]
    collection.save()
    read = api.artifact_collection("dataset", path_of("renamed"))
    same((read.description, sorted(read.tags)), ("what it is", ["raw", "small"]))
    same(api.artifact(path_of("renamed:v0")).version, "v0")
    read.tags = ["raw"]
    read.save()
    same(list(api.artifact_collection("dataset", path_of("renamed")).tags), ["raw"])
    if SDK >= (0, 24):
        names = [c.name for c in api.project(PROJECT, ENTITY).collections()]
        same(names[-2:], ["renamed", "model"])
    read.type = "corpus"
    read.save()
    same(api.artifact(path_of("renamed:v0"), type="corpus").type, "corpus")


def linked_into_a_portfolio(user: str) -> None:
    api = wandb.Api()
    source = api.artifact(path_of("model:v1"))
    source.link(path_of("shelf"), aliases=["top"])
    linked = api.artifact(path_of("shelf:top"))
    same((linked.version, linked.is_link, linked.source_name), ("v0", True, "model:v1"))
    same(linked.source_artifact.name, "model:v1")
    linked.metadata["seen"] = True
    linked.save()
    same((linked.version, api.artifact(path_of("model:v1")).metadata["seen"]), ("v0", True))
    same([a.name for a in api.artifact(path_of("model:v1")).linked_artifacts], ["shelf:v0"])
    same(api.artifact_collection("model", path_of("shelf")).is_sequence(), False)
    api.artifact(path_of("model:v2")).link(path_of("shelf"))
    same(api.artifact(path_of("shelf:latest")).source_name, "model:v2")
    api.artifact(path_of("shelf:v1")).unlink()
    with refused():
        api.artifact(path_of("shelf:v1"))
    same(api.artifact_exists(path_of("model:v2")), True)
    shelf = api.artifact_collection("model", path_of("shelf"))
    shelf.delete()
    same(api.artifact_exists(path_of("shelf:v0")), False)
    same(api.artifact_exists(path_of("model:v1")), True)


def kept_in_a_registry() -> None:
    api = wandb.Api()
    name = f"shelf-{PROJECT}"
    made = api.create_registry(
        name, visibility="organization", description="ours", artifact_types=["model"]
    )
    same((made.name, made.description), (name, "ours"))
    target = f"wandb-registry-{name}/classifier"
    with start() as run:
        linked = run.link_artifact(run.use_artifact("model:v2"), target, aliases=["production"])
        if linked is not None:
            same(linked.version, "v0")
        run.link_artifact(run.use_artifact("model:v0"), target)
        path = run.link_model(path=__file__, registered_model_name="registered", name="own")
        if path is not None:
            same(path.is_link, True)
    artifact = api.artifact(f"{target}:production")
    same((artifact.source_name, artifact.version), ("model:v2", "v0"))
    same(api.artifact(f"{target}:latest").source_name, "model:v0")
    with refused():
        api.artifact(path_of("renamed:v0")).link(target)
    artifact.download(root="from-registry")
    searched(api, name)
    registry = api.registry(name)
    registry.description = "changed"
    registry.save()
    same(api.registry(name).description, "changed")
    registry.delete()
    with refused():
        api.registry(name)


def searched(api: wandb.Api, name: str) -> None:
    same(name in [registry.name for registry in api.registries()], True)
    found = api.registries(filter={"name": {"$regex": name}})
    same([registry.name for registry in found], [name])
    same([c.name for c in found.collections()], ["classifier"])
    same([c.name for c in found.collections(filter={"name": "other"})], [])
    versions = found.collections(filter={"name": "classifier"}).versions()
    same(sorted(v.source_name for v in versions), ["model:v0", "model:v2"])
    live = api.registries(filter={"name": name}).versions(filter={"alias": "production"})
    same([version.source_name for version in live], ["model:v2"])
    measured = api.registries(filter={"name": name}).versions(
        filter={"metadata.f1": {"$gte": 0.25}}
    )
    same([version.source_name for version in measured], ["model:v2"])
    same([c.name for c in api.registry(name).collections()], ["classifier"])


def main() -> None:
    maker, user = produced_and_used()
    lineage_both_ways(maker, user)
    listed()
    collections_changed()
    linked_into_a_portfolio(user)
    kept_in_a_registry()


if __name__ == "__main__":
    main()
