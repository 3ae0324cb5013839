"""A capture as one HTML page: :func:`~kvmenc.report.page.document.page` puts it together.

Each module makes one section as a tree (:mod:`~kvmenc.report.page.elements`), from what the other
commands compute and say. ``map.js`` draws the memory map from numbers alone
(:mod:`~kvmenc.report.page.memory`, :mod:`~kvmenc.report.page.pyramid`); everything else is there
without it.
"""
