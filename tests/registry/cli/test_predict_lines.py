"""What `registry predict` prints for the answers of each kind of task."""

from __future__ import annotations

from typing import Any

import pytest

from registry.cli.predict import _line


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ([{"label": "a", "score": 0.5}, {"label": "b", "score": 0.25}], "a\t0.5000\tb\t0.2500"),
        ([{"generated_text": "x y"}], "x y"),
        ({"summary_text": "s"}, "s"),
        ([{"translation_text": "t"}], "t"),
        ({"text": "spoken", "chunks": []}, "spoken"),
        (
            [{"entity_group": "PER", "score": 0.9, "word": "Bo", "start": 0, "end": 2}],
            "Bo\tPER\t0.9000",
        ),
        ([{"score": 0.1, "token": 3, "token_str": "to", "sequence": "s"}], "to\t0.1000"),
        ([0.5, 1.0], "0.5\t1.0"),
        ({"labels": ["a"], "scores": [1.0]}, '{"labels":["a"],"scores":[1.0]}'),
        ([], ""),
    ],
)
def test_lines(answer: Any, line: str) -> None:
    assert _line(answer) == line
