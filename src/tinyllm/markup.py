"""Texts and tables as HTML for notebooks: tokens shaded by their probability, without a script or a style sheet.

Every text is escaped. Colours are transparent or those of the page, so that light and dark themes both work. Styles are
attributes, because viewers of notebooks remove style sheets.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape

SHADE = "217, 95, 2"
"""The colour of unlikely tokens, as red, green and blue."""
DARKEST = 0.6
"""Opacity of the shade of the unlikeliest tokens; letters on it stay readable."""
MOST_NATS = 8.0
"""Surprise at which the shade is darkest."""
STEPS = (("100 %", 0.0), ("10 %", math.log(10)), ("1 %", math.log(100)), ("0.1 %", math.log(1000)))
FRAME = "font-family:system-ui,sans-serif;font-size:14px;line-height:1.6;max-width:60rem"
DIM = "opacity:.75;font-size:12px"
CELL = "text-align:left;padding:2px 16px 2px 0;background:none;border:0"

Piece = tuple[str, float | None]
"""The text of a token, and its log-probability in nats; None for a token that nothing predicts."""


def shade(log_probability: float) -> str:
    """The background of a token: transparent for a certain one, darkest from `MOST_NATS` of surprise on."""
    opacity = DARKEST * min(max(0.0, -log_probability), MOST_NATS) / MOST_NATS
    return f"background:rgba({SHADE},{opacity:.2f})"


def frame(*parts: str) -> str:
    """The parts below one another, in the type of this module."""
    return f'<div style="{FRAME}">{"".join(parts)}</div>'


def line(*facts: str) -> str:
    """A dim line of `facts`."""
    return f'<div style="{DIM}">{" · ".join(map(escape, facts))}</div>'


def text(content: str, *, dim: bool = False) -> str:
    """A text that keeps its spaces and lines."""
    return f'<span style="white-space:pre-wrap{";opacity:.75" if dim else ""}">{escape(content)}</span>'


def shaded(pieces: Iterable[Piece]) -> str:
    """Tokens one after another, each on the shade of its probability; a pointer on a token shows the number."""
    return "".join(_token(*piece) for piece in joined(pieces))


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """`pieces` without empty ones: the tokens of one character are one piece, and their log-probabilities add up."""
    found: list[Piece] = []
    pending: float | None = None
    for content, nats in pieces:
        if nats is not None:
            pending = nats + (pending or 0.0)
        if content:
            found.append((content, pending))
            pending = None
    return found


def shaded_text(pieces: Iterable[Piece], facts: Sequence[str] = (), before: str = "") -> str:
    """A text shaded by token after the dim text `before`, with a legend and `facts` below."""
    content = f"<div>{text(before, dim=True)}{shaded(pieces)}</div>"
    return frame(content, f'<div style="{DIM};margin-top:6px">{_legend()}</div>', line(*facts) if facts else "")


def plain_text(pieces: Iterable[str]) -> str:
    """Tokens without probabilities: every second one has a light background, so that their ends show."""
    tinted = (
        f'<span style="white-space:pre-wrap;{_tint(place)}">{escape(each)}</span>' for place, each in enumerate(pieces)
    )
    return f"<div>{''.join(tinted)}</div>"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values."""
    drawn = "".join(
        f'<tr style="background:none"><th style="{CELL};font-weight:600">{escape(name)}</th>'
        f'<td style="{CELL}">{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f'<table style="border-collapse:collapse;margin:0 0 8px">{drawn}</table>'


def bar(part: float) -> str:
    """A bar of which `part`, from 0 to 1, is filled."""
    width = f"{100 * min(max(part, 0.0), 1.0):.1f}%"
    filled = f'<div style="width:{width};height:8px;border-radius:4px;background:rgb(68,119,170)"></div>'
    return f'<div style="height:8px;border-radius:4px;background:rgba(128,128,128,.3);margin:4px 0">{filled}</div>'


def histogram(edges: Sequence[float], counts: Sequence[int], label: str) -> str:
    """Bars of `counts` between `edges`, one more than counts, as an SVG with `label` below."""
    width, height = 480, 120
    step, top = width / max(len(counts), 1), max(counts, default=0) or 1
    bars = "".join(
        f'<rect x="{place * step + 1:.1f}" y="{height - height * count / top:.1f}" width="{step - 2:.1f}" '
        f'height="{height * count / top:.1f}" fill="rgb(68,119,170)"><title>'
        f"{low:,.0f} to {high:,.0f}: {count:,}</title></rect>"
        for place, (low, high, count) in enumerate(zip(edges, edges[1:], counts, strict=False))
    )
    axis = (
        f'<g fill="currentColor" fill-opacity="0.75"><text x="0" y="{height + 16}">{edges[0]:,.0f}</text>'
        f'<text x="{width / 2}" y="{height + 16}" text-anchor="middle">{escape(label)}</text>'
        f'<text x="{width}" y="{height + 16}" text-anchor="end">{edges[-1]:,.0f}</text></g>'
    )
    line = f'<path d="M0 {height + 0.5}H{width}" stroke="currentColor" stroke-opacity="0.4"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 22}" width="{width}" '
        f'style="max-width:100%" role="img" font-family="system-ui, sans-serif" font-size="12">{bars}{line}{axis}</svg>'
    )


def show_probability(log_probability: float) -> str:
    """A probability as a percentage with two digits, such as `12 %` or `0.0031 %`."""
    percent = 100 * math.exp(min(log_probability, 0.0))
    return f"{percent:.2g} %" if percent < 99.5 else "100 %"


def _token(content: str, nats: float | None) -> str:
    style = f"white-space:pre-wrap;border-radius:3px;padding:1px 0{';' + shade(nats) if nats is not None else ''}"
    title = f' title="{show_probability(nats)}"' if nats is not None else ""
    return f'<span style="{style}"{title}>{escape(content)}</span>'


def _legend() -> str:
    swatches = "".join(
        f'<span style="padding:0 6px;border-radius:3px;{shade(-nats)}">{label}</span>' for label, nats in STEPS
    )
    return f"probability of a token: {swatches}"


def _tint(place: int) -> str:
    return "background:rgba(128,128,128,.22)" if place % 2 else "background:none"
