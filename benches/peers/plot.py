"""Draws bars with their spread as SVG, readable on light and dark pages."""

from xml.sax.saxutils import escape

WIDTH, LABELS, BAR, STEP, VALUE = 760, 250, 16, 24, 60
INK, OTHER, OURS, SPREAD = "#1f2328", "#9aa5b1", "#1f6feb", "#1f2328"


def plot(panels):
    """`panels`: a title and its bars, each (label, median, min, max, whether it is ours); each panel has its own scale."""
    parts, y = ['<text x="16" y="26" font-size="15" font-weight="600">CPU time per request, microseconds</text>'], 38
    for title, bars in panels:
        y += 14
        parts.append(f'<text x="16" y="{y}" font-weight="600">{escape(title)}</text>')
        y += 12
        # The longest spread ends where the column of values begins.
        scale = (WIDTH - LABELS - VALUE - 16) / max(high for _, _, _, high, _ in bars)
        for label, value, low, high, ours in bars:
            parts += bar(y, scale, label, value, low, high, ours)
            y += STEP
        y += 14
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}">\n<title>CPU time per request of each peer</title>\n'
            f'<rect width="{WIDTH}" height="{y}" rx="8" fill="#ffffff"/>\n{body}\n</svg>\n')


def bar(y, scale, label, value, low, high, ours):
    middle, text = y + BAR / 2, y + BAR - 4
    left, right = LABELS + low * scale, LABELS + high * scale
    return [
        f'<text x="{LABELS - 8}" y="{text}" text-anchor="end">{escape(label)}</text>',
        f'<rect x="{LABELS}" y="{y}" width="{value * scale:.1f}" height="{BAR}" rx="2" fill="{OURS if ours else OTHER}"/>',
        f'<path d="M{left:.1f} {middle}H{right:.1f}M{left:.1f} {middle - 3}v6M{right:.1f} {middle - 3}v6" stroke="{SPREAD}"/>',
        f'<text x="{right + 8:.1f}" y="{text}">{value:.1f}</text>',
    ]
