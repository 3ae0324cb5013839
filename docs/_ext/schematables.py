"""The directive ``schema-tables``: a JSON schema as a table for each of its objects."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docutils import nodes
    from sphinx.application import Sphinx

__all__ = ["setup"]

Schema = dict[str, Any]


class SchemaTables(SphinxDirective):
    """Takes the path of a schema, from the folder of the page.

    ``holds`` names other schemas, whose objects it has and which are not shown again.
    """

    required_arguments = 1
    option_spec: ClassVar = {"holds": str.split}

    def run(self) -> list[nodes.Node]:
        """The tables, as if they stood in the page."""
        held = [self._read(name) for name in self.options.get("holds", ())]
        lines = _page(self._read(self.arguments[0]), self.arguments[0], held)
        return self.parse_text_to_nodes("\n".join(lines))

    def _read(self, name: str) -> Schema:
        path = Path(self.get_source_info()[0]).parent / name
        self.env.note_dependency(str(path))
        schema: Schema = json.loads(path.read_text())
        return schema


def _page(schema: Schema, path: str, held: list[Schema]) -> Iterator[str]:
    says = schema.get("description", "One line of the file.")
    yield f"{says} File: {{download}}`{schema['$id']} <{path}>`."
    yield ""
    if "properties" in schema:
        yield from _table(schema)
    for name, part in schema["$defs"].items():
        if ("properties" in part or "prefixItems" in part) and not _is_of(name, part, held):
            yield f"`{name}`: {part.get('description', '')}"
            yield ""
            yield from _table(part)
    if held:
        links = [f"[{it['title']}](#{re.sub('[^a-z0-9-]', '', it['title'])})" for it in held]
        yield f"All else is in {' and '.join(links)}."


def _is_of(name: str, part: Schema, held: list[Schema]) -> bool:
    """Whether it is one of these schemas, or an object within one."""
    says = part.get("properties", {}).get("schema", {}).get("enum", [])
    return any(name in it["$defs"] or it["title"] in says for it in held)


def _table(part: Schema) -> Iterator[str]:
    rows: Schema = part.get("properties") or dict(enumerate(part["prefixItems"]))
    required = part.get("required", list(rows))
    yield "| field | type | what it is |"
    yield "|---|---|---|"
    for name, field in rows.items():
        shown = f"`{name}`" if name in required else f"`{name}`, optional"
        says = field.get("description", "").replace("|", "\\|")
        yield f"| {shown} | {_type(field)} | {says} |"
    yield ""


def _type(field: Schema) -> str:
    """In a few words; an object by the name of its table."""
    if "$ref" in field:
        return f"`{field['$ref'].rpartition('/')[2]}`"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{it}`" for it in field.get("enum", [field.get("const")]))
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(_type(it) for it in field[key])
    if field["type"] == "array":
        return f"list of {_type(field['items'])}" if field.get("items") else "row"
    inner = field.get("additionalProperties")
    return f"map to {_type(inner)}" if isinstance(inner, dict) else str(field["type"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("schema-tables", SchemaTables)
    return {"parallel_read_safe": True}
