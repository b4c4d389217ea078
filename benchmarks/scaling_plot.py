"""The plot of docs/scaling-laws.md: measured points and the law, bits per byte against trained megabytes, as SVG."""

import math
from collections.abc import Sequence
from typing import Any

from tinyllm.planning.laws import Laws

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 180, 20, 50
COLORS = {"storybook": "#2563eb", "tinystories": "#059669", "shakespeare": "#dc2626", "tang": "#9333ea"}
OTHER_COLOR = "#6b7280"
SMALLEST_RADIUS, RADIUS_PER_DECADE = 3.0, 2.5
BOX = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
CLIP = f'<clipPath id="inside"><rect {BOX}/></clipPath>'
STYLE = "<style>text { font: 12px sans-serif; fill: #6b7280 } .axis { stroke: #9ca3af } .law { fill: none }</style>"
TICKS_X, TICKS_Y = (0.5, 1, 2, 5, 10, 20), (0.2, 0.3, 0.5, 1, 2, 4)


def draw_laws(points: Sequence[dict[str, Any]], laws: Laws) -> str:
    """An SVG: a circle for each point, larger for larger models, and a line of the law for each corpus and model."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        STYLE,
        CLIP,
        *_axes(),
    ]
    for corpus in dict.fromkeys(point["corpus"] for point in points):
        own = [point for point in points if point["corpus"] == corpus]
        color = COLORS.get(corpus, OTHER_COLOR)
        for parameters in sorted({point["parameters"] for point in own}):
            parts.append(_curve(own[0], parameters, laws, color))
        for point in own:
            radius = SMALLEST_RADIUS + RADIUS_PER_DECADE * math.log10(point["parameters"] / 1e5)
            x, y = _x(point["trained_bytes"] / 1e6), _y(point["bits_per_byte"])
            label = f"{corpus}: {point['parameters']:,} parameters, {point['bits_per_byte']:.3f} bits per byte"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{color}" fill-opacity="0.6">'
                f"<title>{label}</title></circle>"
            )
    parts += _legend(list(dict.fromkeys(point["corpus"] for point in points)))
    return "\n".join([*parts, "</svg>", ""])


def _curve(example: dict[str, Any], parameters: int, laws: Laws, color: str) -> str:
    places = [0.5 * 1.15**step for step in range(28)]
    losses = [
        laws.bits_per_byte(parameters, 1e6 * mega, example["corpus_bytes"], example["difficulty"]) for mega in places
    ]
    line = " ".join(f"{_x(mega):.1f},{_y(loss):.1f}" for mega, loss in zip(places, losses, strict=True))
    return f'<polyline class="law" clip-path="url(#inside)" points="{line}" stroke="{color}" stroke-opacity="0.35"/>'


def _axes() -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{right}"/>']
    for tick in TICKS_X:
        parts.append(f'<text x="{_x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    for tick in TICKS_Y:
        parts.append(f'<text x="{LEFT - 8}" y="{_y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<path class="axis" stroke-opacity="0.3" d="M{LEFT} {_y(tick):.1f}H{right}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">trained text, megabytes</text>')
    parts.append(f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">bits per byte</text>')
    return parts


def _legend(corpora: Sequence[str]) -> list[str]:
    x = WIDTH - RIGHT + 20
    parts = [
        f'<circle cx="{x}" cy="{TOP + 20 * i}" r="5" fill="{COLORS.get(corpus, OTHER_COLOR)}"/>'
        f'<text x="{x + 12}" y="{TOP + 20 * i + 4}">{corpus}</text>'
        for i, corpus in enumerate(corpora)
    ]
    y = TOP + 20 * len(corpora)
    return [
        *parts,
        f'<text x="{x - 5}" y="{y + 4}">lines: the law</text>',
        f'<text x="{x - 5}" y="{y + 20}">circles: runs; area: size</text>',
    ]


def _x(megabytes: float) -> float:
    span = math.log(TICKS_X[-1] / TICKS_X[0])
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(megabytes / TICKS_X[0]) / span


def _y(bits: float) -> float:
    span = math.log(TICKS_Y[-1] / TICKS_Y[0])
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(bits / TICKS_Y[0]) / span
