"""Writes the JSON schemas in kvmenc/schemas from the structs that are printed and read.

    make schemas

A struct whose field ``schema`` has one value is a root, in whatever module it is. What a field
means is taken from the ``Attributes`` of its struct's docstring.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.inspect import StructType

import kvmenc
from kvmenc.backend.recordmodel import AnyCall, End, Header

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FOLDER", "READ", "file_name", "roots", "schema_of", "text_of"]

FOLDER = Path(kvmenc.__path__[0]) / "schemas"
#: Files, which may lack what has a default; all others are printed by a command.
READ = {"kvmenc.backtest-run/1", "kvmenc.capture/1", "kvmenc.recording/1"}
#: A table within the package, which nobody else reads or writes.
_INTERNAL = {"kvmenc.backtest-grid/1"}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VERSION = {"type": "string", "description": "The kvmenc that printed it."}

_INNERMOST = re.compile(r"[\[{]\n[^\[\]{}]*[\]}]")

Schema = dict[str, Any]


def roots() -> dict[str, type[Struct]]:
    """All structs that name their schema, by that name."""
    for module in pkgutil.walk_packages(kvmenc.__path__, "kvmenc."):
        if not module.name.endswith("__main__"):  # it would run
            importlib.import_module(module.name)
    named = {name: cls for cls in _below(Struct) for name in _names(cls)}
    return {name: named[name] for name in sorted(named.keys() - _INTERNAL)}


def _below(cls: type[Struct]) -> Iterator[type[Struct]]:
    for one in cls.__subclasses__():
        yield one
        yield from _below(one)


def _names(cls: type[Struct]) -> tuple[str, ...]:
    ours = cls.__module__.startswith("kvmenc.") and "schema" in cls.__struct_fields__
    return get_args(get_type_hints(cls)["schema"]) if ours else ()


def file_name(name: str) -> str:
    """``kvmenc.plan/1`` is in ``plan-1.json``."""
    return name.removeprefix("kvmenc.").replace("/", "-") + ".json"


def text_of(schema: Schema) -> str:
    """As it stands in its file: what holds only plain values is on one line."""
    text = json.dumps(schema, indent=1)
    return _INNERMOST.sub(lambda match: " ".join(match[0].split()), text) + "\n"


def schema_of(name: str, root: type[Struct]) -> Schema:
    """The schema of one root; of a recording, that of each of its lines."""
    types = [Header, AnyCall, End] if root is Header else [root]
    shown, parts = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    classes = {cls.__name__: cls for cls in _structs(msgspec.inspect.multi_type_info(types))}
    for part in parts.values():
        if name not in READ:
            _close(part)
        if part["title"] in classes:
            _describe(part, classes[part["title"]])
    head = {"$schema": _DIALECT, "$id": file_name(name), "title": name}
    if root is Header:
        return head | {"anyOf": list(shown), "$defs": parts}
    whole = parts.pop(root.__name__)
    if name not in READ:
        _add_version(whole)
    return head | {key: it for key, it in whole.items() if key != "title"} | {"$defs": parts}


def _structs(info: object) -> Iterator[type[Struct]]:
    """Those that are met on the way down from what msgspec knows of types."""
    if isinstance(info, StructType):
        yield info.cls
    if isinstance(info, Struct):
        info = [getattr(info, name) for name in info.__struct_fields__]
    if isinstance(info, list | tuple):
        for one in info:
            yield from _structs(one)


def _close(part: Schema) -> None:
    """What is printed has all of its fields, but for those that may be unset, and no others."""
    if "properties" in part:
        fields = part["properties"]
        part["required"] = [
            key for key, it in fields.items() if key in part["required"] or "default" in it
        ]
        part["additionalProperties"] = False
        for it in fields.values():
            it.pop("default", None)


def _add_version(whole: Schema) -> None:
    fields = whole["properties"]
    whole["properties"] = {"schema": fields.pop("schema"), "kvmenc_version": _VERSION} | fields
    whole["required"].insert(1, "kvmenc_version")


def _describe(part: Schema, cls: type[Struct]) -> None:
    """Say what the struct and its fields are."""
    part["description"] = _markdown((inspect.getdoc(cls) or "").partition("\n\nAttributes:")[0])
    said = {name: text for base in reversed(cls.__mro__) for name, text in _attributes(base)}
    rows, fields = part.get("prefixItems", []), part.get("properties", {})
    encoded = zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)
    for i, (name, key) in enumerate(encoded):
        if name in said:
            (rows[i] if rows else fields[key])["description"] = _markdown(said[name])


def _attributes(cls: type) -> Iterator[tuple[str, str]]:
    """Each attribute that a docstring tells of, and what it says."""
    _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("\nAttributes:\n")
    for entry in re.split(r"\n(?! )", dedent(section)):
        names, _, text = entry.partition(": ")
        for name in names.split(", "):
            yield name, text


def _markdown(text: str) -> str:
    """On one line, without the roles of reStructuredText."""
    plain = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return " ".join(plain.split())


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name, root in roots().items():
        (FOLDER / file_name(name)).write_text(text_of(schema_of(name, root)))


if __name__ == "__main__":
    main()
