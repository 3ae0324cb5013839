"""How the documentation is built: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docutils.utils import urischemes

from kvmenc import package_version

if TYPE_CHECKING:
    from click import Context
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "kvmenc"
author = "the kvmenc developers"
release = package_version()
html_title = "kvmenc"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "schematables",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "imported-members": True}
autodoc_member_order = "bysource"
# Annotations name types in short, and several modules have a Guest or a Fault.
suppress_warnings = ["ref.python"]
autodoc_typehints_format = "short"
add_module_names = False
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
napoleon_use_ivar = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # signatures have them

highlight_language = "text"  # of fences that name none

html_theme = "furo"
html_show_copyright = False
html_copy_source = False

urischemes.schemes.pop("tcp", None)  # or tcp:HOST:PORT in a command's help is a link to nowhere

_PLAIN = "\b"  # click: as it stands


def _as_typed(_app: Sphinx, _ctx: Context, lines: list[str]) -> None:
    """Examples and tables at the end of a command's help are no reStructuredText."""
    shown = [line.removeprefix("| ") for line in lines]
    lines[:] = [".. code-block:: text", "", *("   " + line for line in shown if line != _PLAIN), ""]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("sphinx-click-process-epilog", _as_typed)
