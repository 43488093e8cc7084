from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidReferenceError
from registry.reference import ArtifactRef, LocalRef, parse_artifact, parse_reference
from registry.selector import Alias, Best, Step, Version, default_mode

NAME_CHARACTERS = string.ascii_letters + string.digits + "-_. +#%?()é漢"
names = st.text(NAME_CHARACTERS, min_size=1, max_size=30).filter(
    lambda n: n == n.strip() and n not in {".", "..", "~"} and not n.startswith("http")
)
aliases = st.text(string.ascii_letters + string.digits + "-_. ", min_size=1, max_size=20).filter(
    lambda a: a == a.strip() and not (a[0] == "v" and a[1:].isdigit())
)
metrics = st.text(string.ascii_letters + string.digits + "/_@-.():", min_size=1, max_size=20)
selectors = st.one_of(
    st.none(),
    st.integers(0, 10**17).map(Version),
    aliases.map(Alias),
    st.builds(Best, metrics, st.sampled_from([None, "max", "min"])),
    st.integers(0, 10**17).map(Step),
)
PINNED = ArtifactRef("run-bert", "e", "p", Version(3))
digests = st.none() | st.text("0123456789abcdef", min_size=8, max_size=64)


@st.composite
def references(draw: st.DrawFn) -> ArtifactRef:
    project = draw(st.none() | names)
    entity = draw(st.none() | names) if project is not None else None
    return ArtifactRef(draw(names), entity, project, draw(selectors), draw(digests))


@given(references())
def test_printing_and_parsing_are_inverse(ref: ArtifactRef) -> None:
    assert parse_reference(str(ref)) == ref


@given(references(), st.sampled_from(["wandb-artifact:///", "wandb://"]))
def test_a_scheme_changes_nothing(ref: ArtifactRef, scheme: str) -> None:
    assert parse_reference(scheme + str(ref)) == ref


@given(st.text(max_size=60) | st.text("abv0:/@().~ ", max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parse_reference(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run-bert", ArtifactRef("run-bert")),
        ("run-bert:v0", ArtifactRef("run-bert", selector=Version(0))),
        ("p/run-bert:best", ArtifactRef("run-bert", None, "p", Alias("best"))),
        ("e/p/run-bert:v3@0123abcd", ArtifactRef("run-bert", "e", "p", Version(3), "0123abcd")),
        ("run-bert@sha256:" + "a" * 64, ArtifactRef("run-bert", digest="a" * 64)),
        ("b:best(eval/precision@5)", ArtifactRef("b", selector=Best("eval/precision@5"))),
        ("b:best(eval/loss, min)", ArtifactRef("b", selector=Best("eval/loss", "min"))),
        ("b:step(500)", ArtifactRef("b", selector=Step(500))),
        ("b:v01", ArtifactRef("b", selector=Alias("v01"))),
        ("wandb-registry-m/b:prod", ArtifactRef("b", None, "wandb-registry-m", Alias("prod"))),
        ("https://wandb.ai/e/p/artifacts/model/run-bert/v3", PINNED),
        ("https://wandb.ai/e/p/artifacts/model/run-bert/v3/files", PINNED),
        ("https://wandb.ai/e/p/artifacts/model/run-bert", ArtifactRef("run-bert", "e", "p")),
        (
            "https://forge.coreweave.com/wandb/e/p/artifacts/model/my%20bert/latest",
            ArtifactRef("my bert", "e", "p", Alias("latest")),
        ),
        (
            "https://wandb.ai/orgs/o/registry/m?selectionPath=e%2Fwandb-registry-m%2Fb&version=v2",
            ArtifactRef("b", "e", "wandb-registry-m", Version(2)),
        ),
        ("./model", LocalRef("./model")),
        ("/srv/model", LocalRef("/srv/model")),
    ],
)  # fmt: skip
def test_the_grammar(text: str, expected: object) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " a", "a/b/c/d", "a:", "a:b:c", "a:b/c", "a@xyz", "a@0123", "a:best()", "a:best(x,up)",
     "a:step(x)", "a/../b", "a//b", "https://wandb.ai/e/p/runs/abc", "a\nb", "a\x00b", "x" * 129,
     "https://[bad"],
)  # fmt: skip
def test_what_is_no_reference_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert caught.value.hint


def test_a_local_path_is_no_artifact() -> None:
    with pytest.raises(InvalidReferenceError):
        parse_artifact("./model")


def test_the_mode_follows_the_trainers_rule() -> None:
    assert default_mode("eval/loss") == "min"
    assert default_mode("eval/f1") == "max"
    assert Best("eval/loss", "max").effective_mode == "max"
