from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.backend.pages.charts import MAX_POINTS, line_chart, number, thinned
from registry.backend.pages.layout import duration_text, href, size_text, value_text
from registry.backend.pages.markup import element, render
from registry.backend.pages.series import grouped, numeric_series

finite = st.floats(allow_nan=False, allow_infinity=False)
points = st.lists(st.tuples(st.floats(0, 1e9), finite), min_size=1, max_size=60).map(sorted)


class Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_texts_and_attributes_stay_what_they_were(text: str) -> None:
    parser = Texts()
    parser.feed(element("p", [text, [element("b", text)]], title=text))
    parser.close()
    assert parser.tags == ["p", "b"]
    assert parser.text == text * 2
    assert parser.attributes == [("title", text)]


def test_attributes_and_children_that_are_nothing() -> None:
    assert element("p", None, class_=None, hidden=True, open=False) == "<p hidden></p>"
    assert render([1, None, ["a", element("br")]]) == "1a<br/>"


def test_paths_quote_each_segment_whole() -> None:
    assert href("a b", "c/d", "é?#%") == "/a%20b/c%2Fd/%C3%A9%3F%23%25"


@given(points)
def test_a_chart_is_well_formed_and_stays_on_its_canvas(shown: list[tuple[float, float]]) -> None:
    chart = ElementTree.fromstring(line_chart(shown, label='<&"', x_label="step"))
    (line,) = chart.findall("polyline")
    pairs = [pair.split(",") for pair in line.attrib["points"].split()]
    assert len(pairs) == len(shown)
    for x, y in pairs:
        assert -1 <= float(x) <= 361
        assert -1 <= float(y) <= 171


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(-10, 10)), min_size=1, max_size=2000))
def test_thinning_keeps_ends_and_extremes(values: list[tuple[int, float]]) -> None:
    shown = sorted((float(x), y) for x, y in values)
    kept = thinned(shown, 100)
    assert len(kept) <= 100
    assert (kept[0], kept[-1]) == (shown[0], shown[-1])
    assert kept == sorted(kept, key=lambda point: point[0])
    assert min(y for _, y in kept) == min(y for _, y in shown)
    assert max(y for _, y in kept) == max(y for _, y in shown)


def test_a_long_series_is_thinned() -> None:
    many = [(float(x), math.sin(x)) for x in range(100_000)]
    assert len(thinned(many, MAX_POINTS)) <= MAX_POINTS


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1190.0, "1,190"), (0.00002, "2e-05"), (0.123456, "0.1235"), (math.nan, "nan")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def lines(*rows: dict[str, object]) -> list[str]:
    return [json.dumps(row) for row in rows]


def test_series_are_numbers_over_steps() -> None:
    rows = lines(
        {"_step": 0, "loss": 2, "note": "text", "flag": True, "nested": {"a": 1}},
        {"_step": 1, "loss": "NaN"},
        {"_step": 2, "loss": 1.5},
    )
    found = {series.key: series for series in numeric_series([*rows, "no json"], {})}
    assert set(found) == {"loss", "nested.a"}
    assert found["loss"].points == [(0, 2), (2, 1.5)]
    assert found["loss"].skipped == 1


def test_define_metric_chooses_the_axis() -> None:
    config = {"_wandb": {"value": {"m": [{"1": "global_step", "6": [3]}, {"2": "*", "5": 1}]}}}
    rows = lines(
        {"_step": 0, "global_step": 10, "loss": 2.0}, {"_step": 1, "global_step": 20, "loss": 1.0}
    )
    (loss,) = numeric_series(rows, config)
    assert (loss.key, loss.x_key, loss.points) == ("loss", "global_step", [(10, 2.0), (20, 1.0)])


@pytest.mark.parametrize(
    "odd", [{"_wandb": 3}, {"_wandb": {"value": {"m": [1, {"1": 2, "5": 9}]}}}]
)
def test_odd_definitions_are_passed_over(odd: dict[str, object]) -> None:
    (loss,) = numeric_series(lines({"_step": 0, "loss": 2.0}), odd)
    assert loss.x_key == "_step"


def test_series_are_grouped_by_their_first_part() -> None:
    series = numeric_series(lines({"_step": 0, "train/loss": 1, "eval/f1": 1, "lr": 1}), {})
    assert {head: [s.key for s in group] for head, group in grouped(series).items()} == {
        "": ["lr"],
        "eval": ["eval/f1"],
        "train": ["train/loss"],
    }


def test_values_read_well() -> None:
    assert size_text(1536) == "1.5 KiB"
    assert size_text(None) == "—"
    assert (
        duration_text("2026-01-01T00:00:00.000000Z", "2026-01-01T01:02:03.000000Z") == "1 h 2 min"
    )
    assert "10 values from 0 to 5" in value_text(
        {"_type": "histogram", "values": [4, 6], "bins": [0, 2, 5]}
    )
    assert "…" in value_text("x" * 5000)
