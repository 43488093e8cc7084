"""The loop: who begins when, what is told, and that a failure stays with its job."""

from __future__ import annotations

from serving.errors import InferenceError
from serving.generation.loop import GenerationLoop
from tests.serving.generation.counting import POISON, Counting, job


def run(loop: GenerationLoop) -> dict[object, BaseException | None]:
    ended = {}
    while not loop.idle:
        loop.admit()
        ended |= {one.key: one.error for one in loop.turn()}
    return ended


def test_all_grow_together_and_leave_alone() -> None:
    decoder = Counting()
    loop = GenerationLoop(decoder, max_jobs=8)
    made = {"a": job(0, 3), "b": job(5, 1), "c": job(20, 5)}
    for key, (one, _) in made.items():
        loop.add(key, one)
    assert run(loop) == dict.fromkeys(made)
    assert [search.found for _, search in made.values()] == [
        [1, 2, 3],
        [6],
        [21, 22, 23, 24, 25],
    ]
    assert decoder.steps == [2, 2, 1, 1]
    assert not decoder.opened


def test_a_failure_stays_with_its_job() -> None:
    decoder = Counting()
    loop = GenerationLoop(decoder, max_jobs=8)
    made = {"prompt": job(POISON, 3), "later": job(POISON - 2, 6), "well": job(0, 6)}
    for key, (one, _) in made.items():
        loop.add(key, one)
    ended = run(loop)
    assert isinstance(ended["prompt"], InferenceError)
    assert isinstance(ended["later"], InferenceError)
    assert ended["well"] is None
    assert made["well"][1].found == [1, 2, 3, 4, 5, 6]
    assert not decoder.opened


def test_beams_fork_and_are_closed() -> None:
    decoder = Counting()
    loop = GenerationLoop(decoder, max_jobs=8)
    one, search = job(3, 4, width=3)
    loop.add("beams", one)
    assert run(loop) == {"beams": None}
    assert search.found == [4, 5, 6, 7]
    assert decoder.steps == [3, 3, 3]
    assert not decoder.opened


def test_who_comes_first_begins_first_and_only_where_there_is_room() -> None:
    decoder = Counting(max_sequences=4)
    loop = GenerationLoop(decoder, max_jobs=2)
    for key, width in (("wide", 3), ("wider", 4), ("small", 1)):
        loop.add(key, job(0, 2, width)[0])
    loop.admit()
    # `small` would fit, but it came later: nobody starves.
    assert loop.growing == ["wide"]
    loop.turn()
    loop.admit()
    assert loop.growing == ["wider"]
    assert run(loop) == {"wider": None, "small": None}
    assert not loop.fits(job(0, 2, width=5)[0])
    assert not loop.fits(job(0, 40)[0])
    assert not GenerationLoop(Counting(cache_tokens=5), max_jobs=1).fits(job(0, 6)[0])


def test_what_nobody_waits_for_is_dropped() -> None:
    decoder = Counting()
    told: list[tuple[object, str]] = []
    loop = GenerationLoop(
        decoder,
        max_jobs=2,
        tell=lambda key, pieces: told.extend((key, piece.text) for piece in pieces),
    )
    for key in ("gone", "stays", "waits"):
        loop.add(key, job(0, 4)[0])
    loop.admit()
    loop.turn()
    loop.drop("gone")
    loop.drop("waits")
    assert run(loop) == {"stays": None}
    assert [text for key, text in told if key == "stays"] == ["1", "2", "3", "4"]
    assert ("waits", "1") not in told
    assert not decoder.opened
