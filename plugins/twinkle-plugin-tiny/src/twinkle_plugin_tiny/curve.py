"""A loss curve: as text for a terminal, and as a PNG.

Takes numbers and nothing else. plotext and matplotlib are imported where they are used (the extra ``quickstart``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_HEIGHT = 14


def draw_curve(losses: Sequence[float], *, width: int) -> str:
    """The curve as lines of text, at most ``width`` columns wide, without control characters."""
    import plotext

    figure = plotext.figure  # plotext has one figure for the process: cleared before and after, it carries nothing over
    figure.clear()
    try:
        figure.plot_size(width, _HEIGHT)
        figure.theme("colorless")
        figure.title("loss by step")
        figure.draw(figure.signal(list(range(1, len(losses) + 1)), list(losses), marker="braille").lines())
        marks = sorted({1, *(round(len(losses) * part / 4) for part in range(1, 5))} - {0})
        figure.ruler("x").ticks(marks, [str(mark) for mark in marks])
        text: str = figure.build().string(colorless=True)
    finally:
        figure.clear()
    return "\n".join(line.rstrip() for line in text.splitlines())


def save_curve(losses: Sequence[float], path: Path) -> None:
    """Write the curve to ``path`` as a PNG; whatever was there is replaced only by a whole file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # Agg draws without a display; pyplot and its global state are left alone
    axes = figure.add_subplot()
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1.5)
    axes.set(xlabel="step", ylabel="loss (nats per token)", title="twinkle quickstart", ylim=(0, None))
    axes.grid(alpha=0.3)
    aside = path.with_name(f".{path.name}.tmp")
    figure.savefig(aside, format="png")
    aside.replace(path)
