"""The schema files: generated from the structs, closed, with a unit for each number."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from kvmenc.cli import COMMANDS
from tests.schemas.generate import FOLDER, READ, file_name, roots, schema_of, text_of
from tests.schemas.validator import SCENARIO, schemas

if TYPE_CHECKING:
    from collections.abc import Iterator

PRINTED = sorted(schemas().keys() - READ - {SCENARIO})
#: What a QEMU prints at times only; see kvmenc.plan.result.
AT_TIMES = {
    "skipped",
    "xbzrle-cache",
    "expected-downtime",
    "downtime",
    "cpu-throttle-percentage",
}
#: A name that ends so says what is counted, or in what it is measured.
NAMED = re.compile(
    r"(^|[_-])(n?pages|bytes|ms|us|seconds|pps|gfn|percent|percentage|share|count|pages_per_command"
    r"|(bytes|packets|pages)[_-]per[_-]s(econd)?|runs|rounds|round|plans|calls|passes|sends|batches"
    r"|scenarios|channels|ms_per_gib|chance)$"
)
#: And so do these words.
TOLD = re.compile(
    r"[Hh]ow (many|often)|[Nn]umbers?\b|\b[Bb]ytes\b|\b[Pp]ages\b|\bms\b|\b[Ss]econds\b|%"
    r"|\bper cent\b|\bpage of\b|0 to 1|[Ss]hare|\bunit\b|\b[Bb]its\b|interleavings"
)


def test_there_is_a_file_for_each_struct_that_says_what_it_says() -> None:
    """Where it differs: `make schemas`, and look at what changed."""
    wanted = {file_name(name): text_of(schema_of(name, root)) for name, root in roots().items()}
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == wanted


def test_each_command_has_a_schema() -> None:
    # `capture` prints what `show` prints of its file, and `probe` has two answers.
    commands = COMMANDS.keys() - {"capture"}
    assert set(PRINTED) == {f"kvmenc.{name}/1" for name in [*commands, "firmware"]}


@pytest.mark.parametrize("name", schemas())
def test_it_is_json_schema_and_names_itself(name: str) -> None:
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert name in json.dumps(schema.get("properties", schema))


def objects(schema: Any) -> Iterator[tuple[str, Any]]:
    """Each object of a schema that names its fields, wherever it is."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema.get("title", ""), schema
        for it in schema.values():
            yield from objects(it)
    elif isinstance(schema, list):
        for it in schema:
            yield from objects(it)


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_printed_has_all_fields_and_no_others(name: str) -> None:
    for _, it in objects(schemas()[name]):
        assert it["additionalProperties"] is False
        assert it["properties"].keys() - set(it["required"]) <= AT_TIMES
        assert all(
            {"type", "anyOf", "enum", "$ref"} & field.keys() for field in it["properties"].values()
        )


@pytest.mark.parametrize("name", schemas())
def test_each_number_has_its_unit_in_its_name_or_its_description(name: str) -> None:
    for title, it in objects(schemas()[name]):
        for key, field in it["properties"].items():
            if is_number(field):
                said = NAMED.search(key) or TOLD.search(field.get("description", ""))
                assert said, f"{title}.{key}: {field}"


def is_number(field: dict[str, Any]) -> bool:
    kinds = [field, *field.get("anyOf", ())]
    return any(it.get("type") in ("integer", "number") for it in kinds)
