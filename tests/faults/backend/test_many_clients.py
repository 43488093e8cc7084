"""Threads and processes at once in one project: every version is there, once, in order."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.backend_process import BackendProcess, backend_process, run_flow
from tests.e2e.backend.interpreters import NEWEST
from tests.faults.backend.inspection import audit
from tests.faults.backend.wire import RefusedError, Wire

THREADS = 8
VERSIONS = 5


def at_once(*tasks: Callable[[], object]) -> None:
    """Run tasks in threads that start together; the first error is raised."""
    errors: list[BaseException] = []
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        try:
            gate.wait()
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_log_versions_of_one_collection(backend: BackendProcess) -> None:
    def log(number: int) -> None:
        with Wire(backend) as wire:
            for index in range(VERSIONS):
                files = {"who.txt": f"{number} {index}".encode(), "same.txt": b"same"}
                aliases = [{"alias": "best"}, {"alias": f"by-{number}"}]
                wire.log_artifact("shared", files, aliases=aliases)

    at_once(*(lambda number=number: log(number) for number in range(THREADS)))  # type: ignore[misc]
    with Wire(backend) as wire:
        versions = wire.versions("shared")
    assert sorted(versions) == list(range(THREADS * VERSIONS))
    logged = Counter(version["files"]["who.txt"].decode() for version in versions.values())
    assert logged == Counter(f"{n} {i}" for n in range(THREADS) for i in range(VERSIONS))
    holders = {
        alias: number for number, version in versions.items() for alias in version["aliases"]
    }
    assert Counter(a for v in versions.values() for a in v["aliases"]).most_common(1)[0][1] == 1
    assert holders.keys() == {"latest", "best", *(f"by-{n}" for n in range(THREADS))}
    assert holders["latest"] == holders["best"] == THREADS * VERSIONS - 1
    for number in range(THREADS):
        own = versions[holders[f"by-{number}"]]["files"]["who.txt"].decode()
        assert own == f"{number} {VERSIONS - 1}"
    audit(backend.data_dir)


def test_threads_log_the_same_content(backend: BackendProcess) -> None:
    """The same digest from several clients at once: each gets the bytes, none is damaged."""
    files = {"same.bin": b"same" * 50_000}

    def log() -> None:
        with Wire(backend) as wire:
            wire.log_artifact("twins", files)

    at_once(*(log for _ in range(THREADS)))
    with Wire(backend) as wire:
        before = len(wire.versions("twins"))
        wire.log_artifact("twins", files)
        versions = wire.versions("twins")
    assert len(versions) == before
    assert all(version["files"] == files for version in versions.values())
    audit(backend.data_dir)


def test_threads_start_runs_and_replace_files(tmp_path: Path) -> None:
    """Project and runs are made once; rows do not mix; what was replaced is collected."""
    with backend_process(tmp_path / "data", "--replaced-grace-s", "0") as backend:
        tasks = (partial(_rows_and_files, backend, number) for number in range(THREADS))
        at_once(*tasks)
        with Wire(backend) as wire:
            for number in range(THREADS):
                rows = wire.history(f"own-{number}", "fresh")
                assert rows == [{"_step": step, "n": number} for step in range(20)]
            files = wire.run_files("common", "fresh")
            assert set(files) == {f"{index}.txt" for index in range(20)}
            assert set(files.values()) <= {str(number).encode() for number in range(THREADS)}
            data = wire.ask('{project(name: "fresh") {runs {edges {node {name}}}}}')
            names = [edge["node"]["name"] for edge in data["project"]["runs"]["edges"]]
        assert sorted(names) == ["common", *(f"own-{number}" for number in range(THREADS))]
        audit(backend.data_dir)


def _rows_and_files(backend: BackendProcess, number: int) -> None:
    own = f"own-{number}"
    with Wire(backend) as wire:
        wire.start_run("common", project="fresh")
        wire.start_run(own, project="fresh")
        for index in range(20):
            wire.stream(own, index, [{"_step": index, "n": number}], project="fresh")
            wire.save_file("common", f"{index}.txt", str(number).encode(), project="fresh")


def test_a_replaced_file_can_be_fetched_for_a_while(backend: BackendProcess) -> None:
    """A client that listed the files before is not turned away; a restart collects the old."""
    with Wire(backend) as wire:
        wire.start_run("busy")
        wire.save_file("busy", "log.txt", b"old")
        query = '{project(name: "faults") {run(name: "busy") {files {edges {node {directUrl}}}}}}'
        [edge] = wire.ask(query)["project"]["run"]["files"]["edges"]
        wire.save_file("busy", "log.txt", b"new")
        assert wire.get(edge["node"]["directUrl"]) == b"old"
        assert wire.run_files("busy") == {"log.txt": b"new"}
    backend.stop()
    backend.start()
    audit(backend.data_dir)
    with Wire(backend) as wire, pytest.raises(RefusedError):
        wire.get(edge["node"]["directUrl"])


def test_a_writer_that_waits_starves_no_reader(backend: BackendProcess) -> None:
    """More waiting writers than a machine has threads by default: others are still answered."""
    with Wire(backend) as wire:
        wire.start_run("slow")
    done = threading.Event()

    def write(number: int) -> None:
        with Wire(backend) as wire:
            wire.stream("slow", number, [{"_step": number}])

    def read() -> None:
        with Wire(backend) as wire:
            for _ in range(20):
                assert _lines(wire) == 0
        done.set()

    with closing(sqlite3.connect(backend.data_dir / "backend.sqlite3")) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        writers = [threading.Thread(target=write, args=(number,)) for number in range(20)]
        reader = threading.Thread(target=read)
        for thread in writers:
            thread.start()
        _wait_for_threads(backend, len(writers))
        reader.start()
        answered = done.wait(20)
        blocker.rollback()
    for thread in (*writers, reader):
        thread.join()
    assert answered, "no reader was answered while writers waited"
    with Wire(backend) as wire:
        assert _lines(wire) == 20


def _wait_for_threads(backend: BackendProcess, count: int) -> None:
    """Return when the backend works on so many requests, or cannot."""
    assert backend.process
    tasks = Path(f"/proc/{backend.process.pid}/task")
    deadline = time.monotonic() + 5
    while len(list(tasks.iterdir())) <= count and time.monotonic() < deadline:
        time.sleep(0.01)


def _lines(wire: Wire) -> int:
    query = '{project(name: "faults") {run(name: "slow") {historyLineCount}}}'
    return int(wire.ask(query)["project"]["run"]["historyLineCount"])


def test_processes_with_the_sdk(backend: BackendProcess, tmp_path: Path) -> None:
    script = Path(__file__).parent / "flows" / "one_of_many.py"

    def log(number: int) -> None:
        home = tmp_path / f"home-{number}"
        run_flow(backend, NEWEST, script, home, "many", str(number), "3")

    for number in range(3):
        (tmp_path / f"home-{number}").mkdir()
    at_once(*(lambda number=number: log(number) for number in range(3)))  # type: ignore[misc]
    with Wire(backend) as wire:
        versions = wire.versions("shared", "many")
        assert sorted(versions) == list(range(9))
        said = {}
        for number in range(3):
            for row in wire.history(f"process-{number}", "many"):
                said[row["version"]] = f"{number} {row['index']}".encode()
    assert said == {index: version["files"]["who.txt"] for index, version in versions.items()}
    assert versions[8]["aliases"] == {"latest", "best"}
    assert not any(versions[index]["aliases"] for index in range(8))
    audit(backend.data_dir)
