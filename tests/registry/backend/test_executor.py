"""The lenient executor: what it resolves, what it drops, what it counts."""

from __future__ import annotations

import pytest

from registry.backend.graphql.errors import OperationError
from registry.backend.graphql.executor import Executor, parse_operation
from registry.backend.graphql.fields import FieldSet, Node, camel_case, merge, snake_case
from registry.backend.graphql.unknown import UnknownNames

fields = FieldSet()
fields.columns("Run", {"id": "id"})
fields.columns("Portfolio", {"id": "id"})


@fields.query("echo")
def echo(_context: object, *, text: str | None = None, artifact_id: str | None = None) -> object:
    return {"text": text, "artifactID": artifact_id}


@fields.query("run")
def run(_context: object) -> Node:
    return Node("Run", {"id": "r"})


@fields.query("things")
def things(_context: object) -> list[object]:
    return [Node("Run", {"id": "r"}), Node("Portfolio", {"id": "p"}), None]


@fields.on("Run", "self")
def itself(_context: object, source: object) -> Node:
    return Node("Run", source)


@fields.mutation("makeThing")
def make_thing(_context: object, *, entity_name: str = "", size: int = 0) -> object:
    return {"made": f"{entity_name}:{size}"}


@pytest.fixture
def unknown() -> UnknownNames:
    return UnknownNames()


@pytest.fixture
def ask(unknown: UnknownNames):
    executor = Executor(merge([fields]), unknown)

    def run_document(text: str, name: str | None = None, **variables: object) -> object:
        return executor.execute(parse_operation(text, name), variables, None)

    return run_document


def test_aliases_variables_and_defaults(ask) -> None:
    text = """query X($t: String = "default", $a: ID) {
        one: echo(text: $t, artifactID: $a) { text }
        two: echo(text: "given", artifactId: "7") { text again: text artifactID }
    }"""
    assert ask(text) == {
        "one": {"text": "default"},
        "two": {"text": "given", "again": "given", "artifactID": "7"},
    }
    assert ask(text, t=None)["one"] == {"text": None}
    assert ask(text, t="x")["one"] == {"text": "x"}


def test_unknown_fields_are_null_and_counted(ask, unknown: UnknownNames) -> None:
    assert ask("{ run { id nope { deeper } } absent(x: 1) }") == {
        "run": {"id": "r", "nope": None},
        "absent": None,
    }
    assert unknown.counts()["fields"] == {"Query.absent": 1, "Run.nope": 1}


def test_unknown_arguments_are_dropped_and_counted(ask, unknown: UnknownNames) -> None:
    made = ask(
        'mutation($s: Int) { makeThing(input: {entityName: "e", size: $s, colour: 1}) { made } }',
        s=2,
    )
    assert made == {"makeThing": {"made": "e:2"}}
    assert unknown.counts()["arguments"] == {"Mutation.makeThing(colour)": 1}


def test_absent_variables_leave_the_default(ask) -> None:
    text = "mutation($s: Int) { makeThing(input: {entityName: null, size: $s}) { made } }"
    assert ask(text) == {"makeThing": {"made": "None:0"}}


def test_input_as_one_variable(ask) -> None:
    text = "mutation($input: I!) { result: makeThing(input: $input) { made __typename } }"
    answer = ask(text, input={"entityName": "e", "size": 3})
    assert answer == {"result": {"made": "e:3", "__typename": "MakeThingPayload"}}


def test_type_conditions_hold_for_distinguished_types_only(ask) -> None:
    text = """{ things { __typename ... on Run { id } ...P ... on Whatever { same: id } } }
              fragment P on Node { other: id }"""
    assert ask(text) == {
        "things": [
            {"__typename": "Run", "id": "r", "other": "r", "same": "r"},
            {"__typename": "Portfolio", "other": "p", "same": "p"},
            None,
        ]
    }


def test_include_and_skip(ask) -> None:
    text = """query($yes: Boolean!) {
        a: echo @include(if: $yes) { text } b: echo @skip(if: $yes) { text }
        ... @include(if: false) { c: echo { text } }
    }"""
    assert set(ask(text, yes=True)) == {"a"}
    assert set(ask(text, yes=False)) == {"b"}


def test_same_key_merges_selections(ask) -> None:
    assert ask('{ echo(text: "t") { text } echo(text: "t") { artifactID } }') == {
        "echo": {"text": "t", "artifactID": None}
    }


def test_introspection_is_read_off_the_resolvers(ask) -> None:
    answer = ask(
        """{ Q: __type(name: "Query") { fields { name } }
             I: __type(name: "MakeThingInput") { name inputFields { name } }
             N: __type(name: "Nothing") { name } }"""
    )
    assert {"name": "echo"} in answer["Q"]["fields"]
    assert answer["I"] == {
        "name": "MakeThingInput",
        "inputFields": [{"name": "entityName"}, {"name": "size"}],
    }
    assert answer["N"] is None


def test_operation_is_chosen_by_name_else_the_first(ask) -> None:
    text = "query A { a: echo { text } } query B { b: echo { text } }"
    assert set(ask(text)) == {"a"}
    assert set(ask(text, "B")) == {"b"}
    assert set(ask(text, "C")) == {"a"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not graphql {",
        "fragment A on B { c }",
        "{ ...Absent }",
        "query { ...F } fragment F on Query { ...F }",
        "{ run " + "{ self " * 60 + "{ id }" + "}" * 61,
        "{" * 30_000,
        "{ a " * 30_000,
    ],
)
def test_malformed_documents_are_refused(ask, text: str) -> None:
    with pytest.raises(OperationError):
        ask(text)


@pytest.mark.parametrize(
    ("camel", "snake"),
    [
        ("artifactID", "artifact_id"),
        ("entityName", "entity_name"),
        ("includeUpload", "include_upload"),
        ("rampIDType", "ramp_id_type"),
        ("id", "id"),
    ],
)
def test_spellings(camel: str, snake: str) -> None:
    assert snake_case(camel) == snake
    assert camel_case(snake) == camel or camel == "rampIDType"


def test_a_field_is_declared_once() -> None:
    twice = FieldSet()
    twice.columns("Run", {"id": "id"})
    with pytest.raises(ValueError, match=r"Run\.id"):
        merge([fields, twice])
