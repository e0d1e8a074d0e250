"""Line plots as SVG, both axes logarithmic: cost in line with size is a line that rises with slope 1."""

import math

COLOURS = ["#c0392b", "#2471a3"]
WIDTH, HEIGHT, LEFT, TOP, GAP = 300, 200, 60, 40, 90


def svg(panels):
    """`panels`: title, name of the x axis, and {name of a line: [(x, seconds)]}. Gives the document."""
    height = TOP + HEIGHT + 60
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{len(panels) * (WIDTH + GAP)}" height="{height}" '
             'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="white"/>']
    for i, panel in enumerate(panels):
        parts += [f'<g transform="translate({LEFT + i * (WIDTH + GAP)} {TOP})">', *draw(*panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def draw(title, x_name, lines):
    points = [point for line in lines.values() for point in line]
    x_at = scale([x for x, _ in points], WIDTH, False)
    y_at = scale([y for _, y in points], HEIGHT, True)
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>'
    yield f'<text x="{WIDTH / 2}" y="-14" text-anchor="middle" font-size="13">{title}</text>'
    yield f'<text x="{WIDTH / 2}" y="{HEIGHT + 36}" text-anchor="middle">{x_name}</text>'
    for x in sorted({x for x, _ in points}):
        yield f'<text x="{x_at(x):.1f}" y="{HEIGHT + 16}" text-anchor="middle">{x:,}</text>'
    low, high = (math.log10(f(y for _, y in points)) for f in (min, max))
    for exponent in range(math.floor(low), math.ceil(high) + 1):
        for y in (10 ** exponent * step for step in (1, 2, 5)):
            if low <= math.log10(y) <= high:
                yield f'<path d="M0 {y_at(y):.1f}h{WIDTH}" stroke="#eee"/>'
                yield f'<text x="-6" y="{y_at(y) + 4:.1f}" text-anchor="end">{y:g} s</text>'
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" fill="{colour}"/>' for x, y in line)
        yield f'<text x="8" y="{16 + 14 * number}" fill="{colour}">{name}</text>'


def scale(values, length, down):
    """From a value to its place on an axis."""
    low, high = math.log(min(values)), math.log(max(values))
    span = (high - low) or 1
    low, span = low - span * 0.06, span * 1.12
    return lambda value: length * (1 - (math.log(value) - low) / span if down else (math.log(value) - low) / span)
