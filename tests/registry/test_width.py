from __future__ import annotations

from registry.width import NEAR_BYTES_PER_S, NEAR_CONNECTIONS, WINDOW_S, Width


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def filled(width: Width) -> int:
    """Let in whoever may fetch; return how many that were."""
    count = 0
    while width.is_open:
        width.enter()
        count += 1
    return count


def test_few_fetch_from_a_server_that_fills_the_wire() -> None:
    clock = Clock()
    width = Width(8, clock)
    assert filled(width) == NEAR_CONNECTIONS
    for _ in range(20):
        clock.now_s += WINDOW_S
        width.count(int(NEAR_BYTES_PER_S * WINDOW_S) + 1)
        assert not width.is_open
    width.leave()
    assert filled(width) == 1


def test_all_fetch_from_a_server_that_does_not() -> None:
    clock = Clock()
    width = Width(8, clock)
    assert filled(width) == NEAR_CONNECTIONS
    clock.now_s += WINDOW_S
    width.count(int(NEAR_BYTES_PER_S * WINDOW_S / 2))
    assert filled(width) == 8 - NEAR_CONNECTIONS


def test_time_before_the_first_does_not_count() -> None:
    clock = Clock()
    width = Width(8, clock)
    clock.now_s += 60
    assert filled(width) == NEAR_CONNECTIONS


def test_no_more_than_the_limit() -> None:
    assert filled(Width(1, Clock())) == 1
