"""Swaps, crashes and recovery of a deployment with real worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.config import CoreLimits, RestartPolicy
from serving.deployment import Deployment
from serving.errors import LoadError, NotReadyError, ServingError, WorkerCrashedError
from serving.prepare.plan import EXIT_UNAVAILABLE, Prepared, PrepareError
from serving.worker.messages import Done, PredictRequest, WorkerPlan
from serving.worker.process import WorkerProcess, start_worker
from tests.serving.conftest import TinyModel

TEXT = "the film was not bad"


def prepared(reference: str, directory: Path) -> Prepared:
    return Prepared(
        reference=reference,
        pinned_name=f"local/local/{reference}",
        digest=reference * 8,
        directory=str(directory),
        task="",
        engine="onnx",
        reason="the test says so",
        followed=True,
    )


class Shelf:
    """Versions by reference; what is not there cannot be prepared."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        self.directories = dict(directories)
        self.asked: list[str] = []
        self.unavailable = False

    async def __call__(self, reference: str) -> Prepared:
        self.asked.append(reference)
        if self.unavailable:
            raise PrepareError("the server does not answer", exit_code=EXIT_UNAVAILABLE)
        if reference not in self.directories:
            raise PrepareError(f"no {reference}", hint="look elsewhere", exit_code=3)
        return prepared(reference, self.directories[reference])


async def launch(label: str, version: Prepared) -> WorkerProcess:
    plan = WorkerPlan(version.directory, version.task, version.engine, limits=CoreLimits())
    return await start_worker(label, plan, dict(os.environ), timeout_s=60)


@asynccontextmanager
async def deployed(shelf: Shelf, policy: RestartPolicy | None = None, **options: Any) -> Any:
    deployment = Deployment(
        "bert",
        "one",
        prepare=shelf,
        launch=options.pop("launch", launch),
        policy=policy or RestartPolicy(),
        drain_timeout_s=30,
        **options,
    )
    await deployment.start()
    try:
        yield deployment
    finally:
        await deployment.stop()


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 120))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the code under test sets no event
            await asyncio.sleep(0.005)


async def score(deployment: Deployment, text: str = TEXT) -> tuple[str, Any]:
    reply = await deployment.predict(PredictRequest([text], {"top_k": None}, 30.0))
    (outcome,) = reply.outcomes
    assert isinstance(outcome, Done), outcome
    return reply.version.reference, outcome.value


@pytest.fixture
def shelf(models: tuple[TinyModel, TinyModel]) -> Shelf:
    return Shelf({"one": models[0].export, "two": models[1].export})


def test_a_swap_under_load_fails_no_request_and_mixes_no_versions(shelf: Shelf) -> None:
    async def body() -> None:
        told: list[tuple[str, str]] = []
        async with deployed(
            shelf, on_version=lambda d, v, what: told.append((v.reference, what))
        ) as deployment:
            first_pid = deployment.describe()["worker_pid"]
            expected = {"one": (await score(deployment))[1]}
            seen: list[str] = []
            done = asyncio.Event()

            async def ask() -> None:
                while not done.is_set():
                    reference, value = await score(deployment)
                    expected.setdefault(reference, value)
                    assert [row["label"] for row in value] == [
                        row["label"] for row in expected[reference]
                    ]
                    assert value[0]["score"] == pytest.approx(
                        expected[reference][0]["score"], abs=1e-5
                    )
                    seen.append(reference)

            asking = [asyncio.create_task(ask()) for _ in range(8)]
            deployment.want("two")
            await until(lambda: seen.count("two") > 50)
            done.set()
            await asyncio.gather(*asking)
            # A request that began with the old version may end after one that began
            # with the new; no caller goes back.
            assert expected["one"] != expected["two"]
            assert deployment.describe()["swaps"] == 1
            assert deployment.wanted is None
            await until(lambda: not psutil.pid_exists(first_pid))
            await until(
                lambda: told == [("one", "started"), ("two", "started"), ("one", "stopped")]
            )

    run(body)


def test_no_old_version_answers_what_was_asked_after_the_swap(shelf: Shelf) -> None:
    async def body() -> None:
        async with deployed(shelf) as deployment:
            deployment.want("two")
            await until(lambda: deployment.swaps == 1)
            answers = await asyncio.gather(*(score(deployment) for _ in range(50)))
            assert {reference for reference, _ in answers} == {"two"}

    run(body)


def test_a_version_that_cannot_be_prepared_changes_nothing(shelf: Shelf) -> None:
    async def body() -> None:
        async with deployed(shelf) as deployment:
            deployment.want("nine")
            await until(lambda: deployment.failure)
            facts = deployment.describe()
            assert facts["state"] == "ready"
            assert facts["version"] == "local/local/one"
            assert facts["wanted"] == "nine"
            assert facts["last_failure"]["error"] == "no nine"
            assert facts["last_failure"]["hint"] == "look elsewhere"
            assert (await score(deployment))[0] == "one"
            # The alias goes back: the failure is history.
            deployment.want("one")
            await until(lambda: deployment.failure is None)
            assert deployment.swaps == 0

    run(body)


def test_a_version_that_cannot_be_loaded_changes_nothing(
    shelf: Shelf, models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in models[1].export.iterdir():
        content = file.read_bytes()
        (damaged / file.name).write_bytes(content[: len(content) // 2])
    shelf.directories["damaged"] = damaged

    async def body() -> None:
        async with deployed(shelf) as deployment:
            deployment.want("damaged")
            await until(lambda: deployment.failure)
            assert not deployment.failure.transient
            assert (await score(deployment))[0] == "one"
            deployment.want("two")
            await until(lambda: deployment.swaps == 1)
            assert deployment.failure is None

    run(body)


def test_a_version_that_answers_nan_is_never_routed_to(
    shelf: Shelf, models: tuple[TinyModel, TinyModel], tmp_path: Path
) -> None:
    shelf.directories["nan"] = with_nan_weights(models[1].export, tmp_path / "nan")

    async def body() -> None:
        async with deployed(shelf) as deployment:
            deployment.want("nan")
            await until(lambda: deployment.failure)
            assert "NaN" in deployment.failure.error
            assert (await score(deployment))[0] == "one"

    run(body)


def with_nan_weights(export: Path, target: Path) -> Path:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    target.mkdir()
    for file in export.iterdir():
        if file.name != "model.onnx":
            (target / file.name).write_bytes(file.read_bytes())
    model = onnx.load(export / "model.onnx")
    bias = next(i for i in model.graph.initializer if i.name == "classifier.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(3, np.nan, np.float32), bias.name))
    onnx.save(model, target / "model.onnx")
    return target


def test_what_is_unavailable_is_tried_again(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.deployment.RETRY_FIRST_S", 0.01)

    async def body() -> None:
        async with deployed(shelf) as deployment:
            shelf.unavailable = True
            deployment.want("two")
            await until(lambda: shelf.asked.count("two") >= 3)
            assert deployment.failure is not None
            assert deployment.failure.transient
            shelf.unavailable = False
            await until(lambda: deployment.swaps == 1)

    run(body)


def test_the_latest_wish_wins(shelf: Shelf) -> None:
    async def body() -> None:
        async with deployed(shelf) as deployment:
            for reference in ("nine", "two", "one", "two"):
                deployment.want(reference)
            await until(lambda: deployment.swaps == 1)
            assert (await score(deployment))[0] == "two"
            assert "nine" not in shelf.asked

    run(body)


def test_a_crash_fails_what_was_inside_and_sends_the_rest_again(shelf: Shelf) -> None:
    """SIGSTOP first, so that the kill finds requests inside for certain."""

    async def body() -> None:
        async with deployed(shelf) as deployment:
            expected = (await score(deployment))[1]
            pid = deployment.describe()["worker_pid"]
            os.kill(pid, signal.SIGSTOP)
            asking = [asyncio.create_task(score(deployment)) for _ in range(40)]
            await until(lambda: deployment.describe()["in_flight"] == 40)
            os.kill(pid, signal.SIGKILL)
            answers = await asyncio.gather(*asking, return_exceptions=True)
            # Stopped before it could begin with any: all were sent again.
            assert [value for _, value in answers] == [expected] * 40  # type: ignore[misc]
            assert deployment.describe()["crashes"] == 1

    run(body)


def test_what_was_inside_the_engine_is_blamed(shelf: Shelf) -> None:
    async def body() -> None:
        async with deployed(shelf) as deployment:
            pid = deployment.describe()["worker_pid"]
            texts = ["one two three ten first last old new big small " * 5] * 1000
            request = PredictRequest(texts, {}, 30.0)
            asking = asyncio.create_task(deployment.predict(request))
            board = deployment.replica.worker.board
            await until(board.read)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerCrashedError):
                await asking
            await until(lambda: deployment.ready)
            await score(deployment)

    run(body)


def test_the_breaker_opens_after_crashes_in_a_row_and_closes_by_itself(shelf: Shelf) -> None:
    policy = RestartPolicy(backoff_s=0.01, breaker=3, cooldown_s=3.0)

    async def body() -> None:
        async with deployed(shelf, policy) as deployment:
            for _ in range(3):
                await until(lambda: deployment.ready)
                os.kill(deployment.describe()["worker_pid"], signal.SIGKILL)
                await until(lambda: not deployment.ready)
            await until(lambda: deployment.state == "broken")
            with pytest.raises(NotReadyError) as caught:
                await score(deployment)
            assert caught.value.retry_after_s == 3.0
            await until(lambda: deployment.ready)
            await score(deployment)

    run(body)


def test_a_hanging_worker_is_found_and_replaced(shelf: Shelf) -> None:
    policy = RestartPolicy(ping_interval_s=0.05, ping_timeout_s=0.5)

    async def body() -> None:
        async with deployed(shelf, policy) as deployment:
            pid = deployment.describe()["worker_pid"]
            os.kill(pid, signal.SIGSTOP)
            reference, _ = await score(deployment)
            assert reference == "one"
            assert deployment.describe()["worker_pid"] != pid
            assert not psutil.pid_exists(pid)

    run(body)


def test_a_start_that_fails_says_why(shelf: Shelf, tmp_path: Path) -> None:
    shelf.directories["one"] = tmp_path

    async def body() -> None:
        with pytest.raises(LoadError, match=r"config\.json"):
            async with deployed(shelf):
                pass

    run(body)


def test_a_worker_that_takes_too_long_to_load_is_ended(shelf: Shelf) -> None:
    async def hasty(label: str, version: Prepared) -> WorkerProcess:
        plan = WorkerPlan(version.directory, version.task, version.engine)
        return await start_worker(label, plan, dict(os.environ), timeout_s=0.01)

    async def body() -> None:
        before = set(psutil.Process().children())
        with pytest.raises(LoadError, match=r"0\.01 s"):
            async with deployed(shelf, launch=hasty):
                pass
        left = [child.name() for child in set(psutil.Process().children()) - before]
        assert not left

    run(body)


def test_stopping_lets_requests_end(shelf: Shelf) -> None:
    async def body() -> None:
        async with deployed(shelf) as deployment:
            pid = deployment.describe()["worker_pid"]
            os.kill(pid, signal.SIGSTOP)
            asking = [asyncio.create_task(score(deployment)) for _ in range(30)]
            await until(lambda: deployment.describe()["in_flight"] == 30)
            stopping = asyncio.create_task(deployment.stop())
            await until(lambda: deployment.state == "stopped")
            os.kill(pid, signal.SIGCONT)
            await stopping
            assert len(await asyncio.gather(*asking)) == 30
            assert not psutil.pid_exists(pid)
            with pytest.raises(ServingError):
                await score(deployment)

    run(body)


def test_a_worker_has_no_keys(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    async def body() -> None:
        async with deployed(shelf) as deployment:
            worker = psutil.Process(deployment.describe()["worker_pid"])
            environment = worker.environ()
            assert "WANDB_API_KEY" not in environment
            assert "AWS_SECRET_ACCESS_KEY" not in environment
            assert environment["HF_HUB_OFFLINE"] == "1"
            assert "libtorch" not in {Path(m.path).name for m in worker.memory_maps()}

    run(body)
