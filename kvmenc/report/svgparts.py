"""What our pictures are made of."""

from __future__ import annotations

from html import escape

__all__ = ["SMALL", "svg_head", "svg_text"]

#: Height of small letters, in pixels.
SMALL = 11


def svg_head(width: int, height: int, title: str) -> list[str]:
    """The opening tag of a picture, its name, and a white ground."""
    return [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" role="img">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]


def svg_text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    ink: str = "black",
    size: int = 12,
    weight: str = "normal",
) -> str:
    """A line of text; ``text`` may hold anything."""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{ink}" font-size="{size}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
