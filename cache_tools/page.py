"""An HTML page that needs nothing but itself: its style for light and dark, and the pieces it is put together from.

Text from files comes in through `text`, which escapes it; markup is only made here and in the modules that import this.
The page's own policy forbids the browser to load or run anything, whatever a file managed to put into it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from xnornet_port.errors import one_line

__all__ = ["POLICY", "definitions", "details", "figure", "legend", "page", "png_source", "section", "table", "text"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = "page.css"


def page(title: str, body: Iterable[str]) -> str:
    """The whole page, of pieces that are markup already."""
    style = resources.files("cache_tools").joinpath(STYLE).read_text(encoding="utf-8")
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n<main>\n" + "\n".join(body) + "\n</main>\n</html>\n"
    )


def text(value: object) -> str:
    """Anything as text of the page: escaped, control characters and line ends shown as such."""
    return escape(one_line(str(value)), quote=True)


def section(title: str, *body: str) -> str:
    return f"<section><h2>{text(title)}</h2>\n" + "\n".join(body) + "</section>"


def figure(title: str, *body: str) -> str:
    return f"<div class=card><h3>{text(title)}</h3>" + "".join(body) + "</div>"


def details(title: str, body: str, is_open: bool = False) -> str:
    """Something to be unfolded."""
    return f"<details{' open' if is_open else ''}><summary>{text(title)}</summary>{body}</details>"


def definitions(pairs: Iterable[tuple[str, object]]) -> str:
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs) + "</dl>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Numbers to the right."""
    lines = ["<tr>" + "".join(f"<th>{text(name)}</th>" for name in head) + "</tr>"]
    for row in rows:
        cells = (f"<td{' class=n' if isinstance(cell, int | float) else ''}>{text(cell)}</td>" for cell in row)
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return f"<div class=scroll><table>{''.join(lines)}</table></div>"


def legend(entries: Iterable[tuple[str, int, bool]]) -> str:
    """Name, colour's number, dashed or full."""
    items = (f"<span><i class='c{color % 8}{' dashed' if dashed else ''}'></i>{text(name)}</span>"
             for name, color, dashed in entries)  # fmt: skip
    return f"<div class=legend>{''.join(items)}</div>"


def png_source(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
