"""Imports go one way: the tables below are the project's layers, lowest first.

A module may import modules of lower layers and of its own; a module that stands
in no layer fails the test, so that a new one is placed on purpose.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

REGISTRY_LAYERS: list[set[str]] = [
    {"registry.errors"},
    {"registry.versions", "registry.config", "registry.selector", "registry.wire"},
    {"registry.rlimits", "registry.references.allowed"},
    {
        "registry.reference",
        "registry.naming",
        "registry.content",
        "registry.retry",
        "registry.width",
    },
    {
        "registry.hub",
        "registry.sdk_errors",
        "registry.sdk_upload",
        "registry.sdk_values",
        "registry.store",
    },
    {"registry.cache", "registry.resolve", "registry.ranges", "registry.pulled", "registry.lookup"},
    {"registry.transfer", "registry.local", "registry.adapter", "registry.convert"},
    {"registry.references"},
    {"registry.pull"},
    {
        "registry.export",
        "registry.promote",
        "registry.load",
        "registry.callback",
        "registry.push",
        "registry.diff",
        "registry.verify",
        "registry.doctor",
        "registry.tuning",
    },
    {"registry"},
    {"registry.cli", "registry.__main__"},
]
"""The backend stands apart: it knows errors, and only the command line knows it."""

BACKEND_MAY_IMPORT = {"registry.errors"}

SERVING_LAYERS: list[set[str]] = [
    {"serving.errors", "serving.children", "serving.logs"},
    {"serving.config", "serving.keys", "serving.problem"},
    {
        "serving.engines",
        "serving.tasks",
        "serving.generation",
        "serving.telemetry",
        "serving.dialects",
    },
    {"serving.worker", "serving.prepare", "serving.body", "serving.gateway"},
    {"serving.http_protocol", "serving.replica", "serving.follow_child", "serving.tune"},
    {"serving.deployment"},
    {"serving.fleet", "serving.follow"},
    {"serving.streaming"},
    {"serving.data_plane"},
    {"serving.app"},
    {"serving.server"},
]

HEAVY_ONLY_IN: dict[str, set[str]] = {
    "wandb": {
        "registry.hub",
        "registry.sdk_upload",
        "registry.callback",
        "serving.telemetry.reporter",
    },
    "torch": {"registry.convert", "registry.export", "serving.engines.torch", "registry.callback"},
    "transformers": {
        "registry.convert",
        "registry.export",
        "serving.engines.torch",
        "registry.callback",
        "registry.load",
    },
    "onnxruntime": {"registry.export", "serving.engines.onnx"},
    "openvino": {"registry.export"},
    "litestar": {"registry.backend", "serving.app"},
}
"""Packages that cost seconds or megabytes, and the modules that may import them."""

ENVIRONMENT_READERS = {"registry.config", "serving.config"}


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("registry", "serving"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imported(name: str) -> Iterator[str]:
    """Yield the absolute names that a module imports, also inside functions."""
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            source = node.module or ""
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in MODULES else source


def within(name: str, owner: str) -> bool:
    return name == owner or (owner not in ("registry", "serving") and name.startswith(f"{owner}."))


def layer_of(name: str, layers: list[set[str]]) -> int | None:
    for index, layer in enumerate(layers):
        if any(within(name, owner) for owner in layer):
            return index
    return None


def own(package: str) -> list[str]:
    return [name for name in MODULES if name.split(".")[0] == package]


@pytest.mark.parametrize(
    ("package", "layers"), [("registry", REGISTRY_LAYERS), ("serving", SERVING_LAYERS)]
)
def test_layers(package: str, layers: list[set[str]]) -> None:
    wrong = []
    for name in own(package):
        if name.startswith("registry.backend") or name == "serving":
            continue
        here = layer_of(name, layers)
        assert here is not None, f"{name} stands in no layer; place it"
        for target in imported(name):
            if target.split(".")[0] != package or target == name:
                continue
            there = layer_of(target, layers)
            if there is not None and there > here and name != "registry":
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_registry_never_imports_serving() -> None:
    wrong = [
        f"{name} imports {target}"
        for name in own("registry")
        if not name.startswith("registry.cli")
        for target in imported(name)
        if within(target, "serving") or target.startswith("serving.")
    ]
    assert not wrong


def test_serving_imports_only_the_public_names_of_registry() -> None:
    wrong = [
        f"{name} imports {target}"
        for name in own("serving")
        for target in imported(name)
        if target.startswith("registry.")
    ]
    assert not wrong


def test_the_backend_stands_apart() -> None:
    wrong = [
        f"{name} imports {target}"
        for name in own("registry")
        if name.startswith("registry.backend")
        for target in imported(name)
        if target.split(".")[0] in ("registry", "serving")
        and not target.startswith("registry.backend")
        and target not in BACKEND_MAY_IMPORT
    ]
    wrong += [
        f"{name} imports {target}"
        for name in own("registry")
        if not name.startswith(("registry.backend", "registry.cli"))
        for target in imported(name)
        if target.startswith("registry.backend")
    ]
    assert not wrong


@pytest.mark.parametrize("package", sorted(HEAVY_ONLY_IN))
def test_heavy_packages_stay_at_their_edge(package: str) -> None:
    wrong = [
        name
        for name in MODULES
        if not any(within(name, owner) for owner in HEAVY_ONLY_IN[package])
        and any(target.split(".")[0] == package for target in imported(name))
    ]
    assert not wrong


def test_only_config_reads_the_environment() -> None:
    wrong = []
    for name, path in MODULES.items():
        if name in ENVIRONMENT_READERS:
            continue
        wrong += [
            f"{name}:{node.lineno}"
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        ]
    assert not wrong


def test_no_cycles_between_modules() -> None:
    """Module-level imports alone, since those inside functions run later."""
    graph = {name: sorted(set(top_level_imports(name))) for name in MODULES}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name in done:
            return
        for target in graph[name]:
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def top_level_imports(name: str) -> Iterator[str]:
    for node in ast.parse(MODULES[name].read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                target = inner if inner in MODULES else node.module
                if target in MODULES and target != name:
                    yield str(target)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
