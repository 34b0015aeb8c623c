"""The chart: how many times faster than TCG, for Tenon and for the host itself, on a logarithmic scale, as SVG."""
import math
from xml.sax.saxutils import escape

from suite import workloads
from suite.rows import format_ratio, make_means

WIDTH, LEFT, RIGHT = 860, 268, 64
TOP, ROW, GAP, BAR = 96, 22, 14, 7
TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .paper { fill: #ffffff; } .title { font-size: 17px; font-weight: 600; } .quiet { fill: #59636e; }
  .group { font-weight: 600; } .grid { stroke: #d1d9e0; } .even { stroke: #59636e; stroke-width: 1.5; }
  .tenon { fill: #0969da; } .native { fill: #afb8c1; } .slow { fill: #cf222e; }
  .value { font-size: 10px; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .paper { fill: #0d1117; } .quiet { fill: #9198a1; } .grid { stroke: #2a313c; }
    .even { stroke: #9198a1; } .tenon { fill: #4493f8; } .native { fill: #4b535d; } .slow { fill: #f85149; }
  }
"""


class Scale:
    """Ratio to x, over all that is drawn and 1 in any case."""

    def __init__(self, ratios):
        self.low = max([tick for tick in TICKS if tick <= min([1, *ratios])] or TICKS[:1])
        self.high = min([tick for tick in TICKS if tick >= max([2, *ratios])] or TICKS[-1:])
        self.width = WIDTH - LEFT - RIGHT

    def x(self, ratio):
        clipped = min(max(ratio, self.low), self.high)
        return LEFT + self.width * math.log(clipped / self.low) / math.log(self.high / self.low)

    def ticks(self):
        return [tick for tick in TICKS if self.low <= tick <= self.high]


def bars_of(rows):
    """(class title, [(label, tenon, native), ...]) for the fewest vCPUs measured; the means first."""
    cpus = min((row.cpus for row in rows), default=1)
    rows = [row for row in rows if row.cpus == cpus]
    means = [(workloads.CLASSES.get(mean.group, "all rows"), mean.tenon_over_tcg, mean.native_over_tcg)
             for mean in make_means(rows) if mean.group == "all" or mean.rows > 1]
    groups = [("geometric means", means)]
    for group, title in workloads.CLASSES.items():
        bars = [(row.title, row.tenon_over_tcg, row.native_over_tcg) for row in rows if row.group == group]
        if bars:
            groups.append((title, bars))
    drawn = [(title, [bar for bar in bars if bar[1:] != (None, None)]) for title, bars in groups]
    return cpus, [(title, bars) for title, bars in drawn if bars]


def bar(scale, y, height, ratio, kind):
    start, end = sorted((scale.x(1), scale.x(ratio)))
    width = max(end - start, 1)
    return f'<rect class="{kind}" x="{start:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="1.5"/>'


def draw_bar_pair(scale, y, label, tenon, native):
    parts = [f'<text x="{LEFT - 10}" y="{y + 11}" text-anchor="end">{escape(label)}</text>']
    if tenon is not None:
        kind = "tenon" if tenon >= 1 else "slow"
        x = max(scale.x(tenon), scale.x(1)) + 5
        parts.append(bar(scale, y, BAR + 1, tenon, kind))
        parts.append(f'<text class="value" x="{x:.1f}" y="{y + 8}">{format_ratio(tenon)}</text>')
    if native is not None:
        parts.append(bar(scale, y + BAR + 2, BAR - 2, native, "native"))
        x = scale.x(native) + 5
        parts.append(f'<text class="value quiet" x="{x:.1f}" y="{y + BAR + 8}">{format_ratio(native)}</text>')
    return parts


def draw_grid(scale, bottom):
    parts = []
    for tick in scale.ticks():
        kind = "even" if tick == 1 else "grid"
        x = scale.x(tick)
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        parts.append(f'<text class="quiet" x="{x:.1f}" y="{TOP - 14}" text-anchor="middle">{tick:g}×</text>')
    return parts


def draw_legend():
    parts = []
    entries = ((0, "tenon", "Tenon"), (80, "native", "the host itself"), (200, "even", "1× = QEMU TCG"))
    for offset, kind, text in entries:
        x = LEFT + offset
        if kind == "even":
            parts.append(f'<line class="even" x1="{x + 6}" x2="{x + 6}" y1="52" y2="64"/>')
        else:
            parts.append(f'<rect class="{kind}" x="{x}" y="53" width="12" height="10" rx="2"/>')
        parts.append(f'<text x="{x + 18}" y="62">{text}</text>')
    return parts


def draw(rows, facts):
    cpus, groups = bars_of(rows)
    scale = Scale([ratio for _, bars in groups for _, *ratios in bars for ratio in ratios if ratio])
    body, y = [], TOP
    for title, bars in groups:
        body.append(f'<text class="group" x="16" y="{y + 11}">{escape(title)}</text>')
        y += ROW - 2
        for label, tenon, native in bars:
            body += draw_bar_pair(scale, y, label, tenon, native)
            y += ROW
        y += GAP
    bottom, height = y, y + 12
    machine = facts["machine"]
    subtitle = (f"{cpus} vCPU{'s' if cpus > 1 else ''}, engine {facts['tenon']['engine']}, {machine['processor']}, "
                f"{facts['date'][:10]}; logarithmic scale")
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-label="Speed of Tenon and of the host relative to QEMU TCG">',
        f"<style>{STYLE}</style>", f'<rect class="paper" width="{WIDTH}" height="{height}" rx="6"/>',
        '<text class="title" x="16" y="26">Times faster than QEMU TCG</text>',
        f'<text class="quiet" x="16" y="44">{escape(subtitle)}</text>',
        *draw_legend(), *draw_grid(scale, bottom), *body, "</svg>", ""])
