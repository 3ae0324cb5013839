"""What a document has against the schema that it names."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

import fakekvm
from tests.schemas.generate import FOLDER

__all__ = ["SCENARIO", "faults", "schemas", "validator"]

SCENARIO = "fakekvm.scenario/1"
_FOLDERS = (FOLDER, Path(fakekvm.__path__[0]) / "schemas")


@cache
def schemas() -> dict[str, Any]:
    """All files, by the name that documents give."""
    files = [json.loads(path.read_text()) for folder in _FOLDERS for path in folder.iterdir()]
    return {schema["title"]: schema for schema in files}


@cache
def validator(name: str) -> Draft202012Validator:
    """Of one schema; it knows the others."""
    others = [(it["$id"], Resource.from_contents(it)) for it in schemas().values()]
    return Draft202012Validator(schemas()[name], registry=Registry().with_resources(others))


def faults(document: Any) -> list[str]:
    """Where it is not what the schema that it names says.

    Raises:
        KeyError: there is no such schema.
    """
    errors = validator(document["schema"]).iter_errors(document)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors]
