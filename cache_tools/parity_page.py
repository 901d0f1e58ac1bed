"""The page of a parity run: plain HTML that needs no other file and loads none, for light and dark screens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cache_tools.page import POLICY
from cache_tools.page import text as escape

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #c5221f; --line: #8884; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { overflow-wrap: anywhere; margin-top: 2.5rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
.verdict { font-weight: 600; }
.differs { color: var(--bad); }
.agrees { color: var(--good); }
td.number { white-space: nowrap; }
.caption { font-size: .85rem; margin-top: 0; opacity: .8; }
.bar { position: relative; height: 1.6rem; margin: .5rem 0 .3rem; border-bottom: 1px solid var(--line); }
.bar span { position: absolute; top: .3rem; height: 1rem; }
.interval { background: #4a90d9; border-radius: 2px; min-width: 3px; }
.published { width: 2px; background: var(--bad); }
"""


def page(reports: list[dict[str, Any]]) -> str:
    """All models of a run."""
    body = "\n".join(section(report) for report in reports)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Parity</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Parity</h1>\n{body}\n</body>\n</html>\n"
    )


def section(report: dict[str, Any]) -> str:
    """One model."""
    verdict = f"{report['verdict']}: {report['reason']}"
    css_class = report["verdict"] if report["verdict"] in ("agrees", "differs") else ""
    parts = [
        f"<h2>{escape(report['model'])}</h2>",
        f'<p class="verdict {css_class}">{escape(verdict)}</p>',
        f"<p>{escape(report['kind'])}, {report['n_classes']:,} classes; weights {escape(report['weights'])}. "
        f"{report['n_pictures']:,} of {report['n_available']:,} pictures tested, "
        f"{report['n_unreadable']:,} unreadable.</p>",
        accuracies(report),
        interval(report),
    ]
    if report["xnor_top1"]:
        parts += [
            f"<p>Same top-1 for {report['n_same']:,} of {report['n_pictures']:,} pictures; largest difference of "
            f"log-probabilities {report['largest_difference']:.1e}. Integer dot products of {report['n_checked']:,} "
            "pictures against float convolutions of signs:</p>",
            layers(report["layers"]),
        ]
    return "\n".join(parts)


def accuracies(report: dict[str, Any]) -> str:
    rows = []
    for title, prefix in (("float convolutions", ""), ("XNOR kernels", "xnor_")):
        if report[f"{prefix}top1"]:
            cells = (title, *(cell for top in ("top1", "top5") for cell in figures(report[prefix + top])))
            rows.append(cells)
    return table(("path", "top-1", "95 % interval", "top-5", "95 % interval"), rows)


def figures(accuracy: dict[str, Any]) -> tuple[str, str]:
    low, high = accuracy["interval_95"]
    return f"{accuracy['percent']:.2f} %", f"{low:.2f} to {high:.2f}"


def interval(report: dict[str, Any]) -> str:
    """The 95 % interval of top-1 on a line from 0 to 100 %, with the published figure as a mark."""
    low, high = (report["xnor_top1"] or report["top1"])["interval_95"]
    published = report["published_top1"]
    mark = "" if published is None else f'<span class="published" style="left: {published:.2f}%"></span>'
    text = "" if published is None else f", published {published:g} %"
    label = f"95 % interval of top-1, {low:.2f} to {high:.2f} %{text}, on a line from 0 to 100 %"
    inner = f'<span class="interval" style="left: {low:.2f}%; width: {high - low:.2f}%"></span>{mark}'
    return f'<div class="bar" role="img" aria-label="{label}">{inner}</div>\n<p class="caption">{label}</p>'


def layers(checks: list[dict[str, Any]]) -> str:
    rows = []
    for check in checks:
        wrong = ", ".join(map(str, sorted(check["wrong_filters"])[:10])) or "none"
        rows.append((
            check["place"], f"{check['n_dots']:,}", f"{sum(check['wrong_filters'].values()):,}", wrong,
            f"{check['wrong_outputs']:,}", f"{check['other_signs']:,} of {check['n_signs']:,}",
        ))  # fmt: skip
    heads = (
        "layer",
        "dot products",
        "different",
        "filters",
        "wrong outputs",
        "input signs other than on the float path",
    )
    return table(heads, rows)


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """The first column is text, the others are numbers."""

    def row(cells: tuple[str, ...], tag: str) -> str:
        kinds = ["", *[' class="number"'] * (len(cells) - 1)]
        return "<tr>" + "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True)) + "</tr>"

    lines = "\n".join(row(cells, "td") for cells in rows)
    return f'<div class="table"><table>\n{row(heads, "th")}\n{lines}\n</table></div>'
