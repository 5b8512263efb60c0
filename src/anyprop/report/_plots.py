"""Figures of a comparison: learning curves, alignment angles, cost against accuracy.

They are made with matplotlib's objects alone, so that neither pyplot's current figure nor a display is
touched. A rule keeps its colour, marker and line style in all of them.
"""

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from .._checks import choose
from .._files import write_bytes
from ._records import Curve, Results, Run, curve, epochs_of, layers, number, runs_by_rule, summary
from ._words import Measure

INK, MUTED, GRID, PAPER = "#1d2127", "#616b77", "#dde1e6", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c2589a", "#cc8400", "#3d9bd1")
"""Okabe and Ito's colours for every kind of colour vision, the light ones darkened to be read on white."""

MARKERS = "os^DvPX*<>"
DASHES = ("-", (0, (4, 1.6)), (0, (1, 1.2)))

METRICS = {
    "test_error": "Test error",
    "validation_error": "Validation error",
    "test_loss": "Test loss",
    "validation_loss": "Validation loss",
    "train_loss": "Training loss",
}
"""What `learning_figure` can draw, with its name on the axis."""

TEXT = 9.5
"""Size of text, in points."""

NARROW = 6.0
"""Below this width, in inches, the layouts turn to a single column with the legend underneath."""


class NothingToDrawError(ValueError):
    """The results lack the numbers that a figure shows."""


class Look(NamedTuple):
    """How a rule is drawn, in every figure."""

    place: int
    colour: str
    marker: str
    dash: Any


def looks(rules: Sequence[str]) -> dict[str, Look]:
    """Return the look of each rule: backprop, the yardstick, in the colour of text, the others by order."""
    out = {}
    for place, rule in enumerate(rules):
        turn, colour = divmod(len(out) - ("backprop" in out), len(COLOURS))
        if rule == "backprop":
            out[rule] = Look(place, INK, "o", "-")
        else:
            marker = MARKERS[1 + (place - ("backprop" in out)) % (len(MARKERS) - 1)]
            out[rule] = Look(place, COLOURS[colour], marker, DASHES[turn % len(DASHES)])
    return out


def learning_figure(
    results: Results,
    metric: str | None = None,
    *,
    counted: str = "Epoch",
    named: str | None = None,
    width: float = 8.0,
) -> Figure:
    """Return the learning curves: mean over the seeds, and a band from the lowest to the highest seed.

    The axis is logarithmic where the values span more than a factor of eight.

    Args:
        results: what a comparison stored; see `anyprop.report`.
        metric: what to draw: "test_error", "validation_error", "test_loss", "validation_loss" or
            "train_loss"; default: the test error, or the test loss where no errors are counted.
        counted: what the records count under "epoch", the name on the horizontal axis.
        named: the name on the vertical axis; default: that of the metric.
        width: width of the figure in inches; below 6 the legend moves under the axes.

    Raises:
        ValueError: the results hold no runs, or no value of this metric.
    """
    runs = runs_by_rule(results)
    drawn = Measure.of(summary(results)).key if metric is None else choose("metric", metric, METRICS)
    curves = {rule: curve(runs[rule], lambda epoch: epoch.get(drawn)) for rule in runs}
    curves = {rule: c for rule, c in curves.items() if c.epoch.size}
    if not curves:
        raise NothingToDrawError(f"results hold no finite {drawn}; pass a metric that was recorded")
    look = looks(list(runs))
    wide = width >= NARROW
    # Wide figures grow with the names beside the curves.
    height = max(0.5 * width, 0.25 * len(curves) + 0.5) if wide else 0.75 * width
    figure, axes = _figure(width, height)
    ax = axes[0]
    for rule, c in curves.items():
        _draw(ax, c, look[rule])
    _value_axis(ax, named or METRICS[drawn], [float(v) for c in curves.values() for v in (c.low.min(), c.high.max())])
    ax.set_xlabel(counted)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if wide:
        _label_ends(ax, curves, look)
    else:
        _legend(figure, list(curves), look)
    return figure


def alignment_figure(results: Results, *, width: float = 8.0) -> Figure:
    """Return the angle between each rule's update and the exact gradient over training, one panel a layer.

    Lines are means over the seeds, bands reach from the lowest to the highest seed. The line at 90 degrees
    is where an update stops lowering the cost.

    Args:
        results: what a comparison stored; see `anyprop.report`.
        width: width of the figure in inches; below 6 there is one panel a row.

    Raises:
        ValueError: the results hold no runs, or no angles.
    """
    runs = runs_by_rule(results)
    look = looks(list(runs))
    panels = {layer: _angle_curves(runs, layer) for layer in layers(results)}
    panels = {layer: curves for layer, curves in panels.items() if curves}
    if not panels:
        raise NothingToDrawError("results hold no alignment angles; compare with alignment measured to draw them")
    columns = min(len(panels), 3 if width >= NARROW else 1)
    rows = math.ceil(len(panels) / columns)
    height = min(0.8 * width / columns, 3.4)
    figure, axes = _figure(width, rows * height, rows=rows, columns=columns)
    top = max(c.high.max() for curves in panels.values() for c in curves.values())
    end = 90 if top < 96 else 30 * math.ceil(top / 30)
    for ax, (layer, curves) in zip(axes, panels.items(), strict=False):
        for rule, c in curves.items():
            _draw(ax, c, look[rule])
        ax.axhline(90, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1.5)
        _literal(ax.set_title(layer, fontsize=TEXT + 0.5, color=INK, loc="left", weight="bold"))
        ax.set_ylim(-4, end + 8)
        ax.set_yticks(range(0, end + 1, 30))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}°"))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[len(panels) :]:
        ax.remove()
    for i, ax in enumerate(axes[: len(panels)]):
        if i % columns == 0:
            ax.set_ylabel("Angle to gradient")
        if i + columns >= len(panels):
            ax.set_xlabel("Epoch")
    drawn = [rule for rule in runs if any(rule in curves for curves in panels.values())]
    _legend(figure, drawn, look)
    return figure


def cost_figure(results: Results, *, width: float = 8.0) -> Figure:
    """Return what accuracy costs: test error over training time, and against speed relative to backprop.

    Where no errors are counted, it shows the test loss. Error bars are standard deviations over the seeds. A panel
    whose numbers were not recorded is left out.

    Args:
        results: what a comparison stored; see `anyprop.report`.
        width: width of the figure in inches; below 6 the panels stand one above the other.

    Raises:
        ValueError: the results hold no runs, or no rule has both a test error or loss and a cost.
    """
    runs = runs_by_rule(results)
    look = looks(list(runs))
    records = summary(results)
    measure = Measure.of(records)
    records = [r for r in records if math.isfinite(measure.mean(r))]
    timed = {r["rule"]: _over_time(runs[r["rule"]], measure) for r in records if r["seconds"] > 0}
    timed = {rule: c for rule, c in timed.items() if c.epoch.size}
    rated = [r for r in records if r["ratio_to_backprop"] > 0]
    if not timed and not rated:
        raise NothingToDrawError("results hold no test error or loss beside a time or a speed: no cost to draw")
    wide = width >= NARROW
    panels = bool(timed) + bool(rated)
    rows, columns = (1, panels) if wide else (panels, 1)
    height = min(0.82 * width / columns, 3.8)
    figure, axes = _figure(width, rows * height, rows=rows, columns=columns)
    values = [float(v) for c in timed.values() for v in c.mean] + [measure.mean(r) for r in records]
    if timed:
        ax = axes[0]
        for rule, c in timed.items():
            _draw(ax, c, look[rule])
        _value_axis(ax, METRICS[measure.key], values)
        _span_axis(ax, "x", [float(t) for c in timed.values() for t in c.epoch], unit=" s")
        ax.set_xlabel("Training time")
    if rated:
        ax = axes[-1]
        ax.axvline(1, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1.5)
        for record in rated:
            _point(ax, record, look[record["rule"]], measure)
        _value_axis(ax, METRICS[measure.key], values)
        _span_axis(ax, "x", [1.0, *(r["ratio_to_backprop"] for r in rated)], unit="×")
        ax.set_xlabel("Steps per second, relative to backprop")
    if wide and panels == 2:
        axes[1].set_ylim(axes[0].get_ylim())
        axes[1].set_ylabel("")
    drawn = [rule for rule in runs if rule in timed or any(r["rule"] == rule for r in rated)]
    _legend(figure, drawn, look)
    return figure


def plot_learning(
    results: Results,
    path: str | os.PathLike[str],
    metric: str | None = None,
    *,
    counted: str = "Epoch",
    named: str | None = None,
) -> None:
    """Save `learning_figure`.

    Args:
        results: what a comparison stored; see `anyprop.report`.
        path: file to write; its ending (.png, .svg or .pdf) is the format.
        metric: what to draw; see `learning_figure`.
        counted: what the records count under "epoch", the name on the horizontal axis.
        named: the name on the vertical axis; default: that of the metric.

    Raises:
        ValueError: another ending, or nothing to draw.
    """
    _save(learning_figure(results, metric, counted=counted, named=named), path)


def plot_alignment(results: Results, path: str | os.PathLike[str]) -> None:
    """Save `alignment_figure`; arguments and errors as in `plot_learning`."""
    _save(alignment_figure(results), path)


def plot_cost(results: Results, path: str | os.PathLike[str]) -> None:
    """Save `cost_figure`; arguments and errors as in `plot_learning`."""
    _save(cost_figure(results), path)


def svg(figure: Figure) -> str:
    """Return a figure as SVG whose text is text and whose artists carry the class of their rule."""
    buffer = io.StringIO()
    # A fixed salt makes the same results give the same file, byte for byte.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "anyprop"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return re.sub(r'id="rule-(\d+)"', r'class="rule rule-\1"', buffer.getvalue())


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    kind = Path(path).suffix.lower()
    if kind not in (".png", ".svg", ".pdf"):
        raise ValueError(f"path must end in .png, .svg or .pdf, not {Path(path).name!r}")
    if kind == ".svg":
        write_bytes(Path(path), svg(figure).encode())
    else:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind[1:], dpi=200)
        write_bytes(Path(path), buffer.getvalue())


def _angle_curves(runs: Mapping[str, Sequence[Run]], layer: str) -> dict[str, Curve]:
    curves = {rule: curve(each, lambda epoch: (epoch.get("alignment") or {}).get(layer)) for rule, each in runs.items()}
    return {rule: c for rule, c in curves.items() if c.epoch.size}


def _figure(width: float, height: float, *, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for ax in axes:
        ax.set_facecolor("none")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.spines["bottom"].set_color(MUTED)
        ax.grid(axis="y", color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(which="both", labelsize=TEXT - 0.5, labelcolor=MUTED, color=MUTED, length=0)
        ax.tick_params(axis="x", which="major", length=3)
        for label in (ax.xaxis.label, ax.yaxis.label):
            label.set(size=TEXT, color=INK)
    return figure, axes


def _draw(ax: Axes, c: Curve, look: Look) -> None:
    """Draw the mean of a curve with at most about ten markers, over the band of its seeds."""
    every = max(1, math.ceil(len(c.epoch) / 10))
    (line,) = ax.plot(c.epoch, c.mean, **_line(look), markevery=((len(c.epoch) - 1) % every, every))
    band = ax.fill_between(c.epoch, c.low, c.high, color=look.colour, alpha=0.16, linewidth=0)
    _tag(look, line, band)


def _point(ax: Axes, record: Mapping[str, Any], look: Look, measure: Measure) -> None:
    spread = measure.sd(record)
    bar = ax.errorbar(
        record["ratio_to_backprop"],
        measure.mean(record),
        yerr=spread if math.isfinite(spread) else None,
        **(_line(look) | {"linestyle": "none", "markersize": 1.3 * _line(look)["markersize"]}),
    )
    _tag(look, *bar.get_children())


def _line(look: Look) -> dict[str, Any]:
    return {
        "color": look.colour,
        "linestyle": look.dash,
        "linewidth": 1.8,
        "marker": look.marker,
        "markersize": 8 if look.marker in "PX*" else 6,  # these three fill less of their square
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.7,
    }


def _tag(look: Look, *artists: Artist) -> None:
    """Mark artists as belonging to a rule, so that a page can single it out."""
    for artist in artists:
        artist.set_gid(f"rule-{look.place}")


def _literal(*texts: Any) -> None:
    """Keep names as they are: a dollar sign in one does not begin a formula."""
    for text in texts:
        text.set_parse_math(False)


def _over_time(runs: Sequence[Run], measure: Measure) -> Curve:
    """Return the test error, or loss, over the mean training time of each epoch."""
    error = curve(runs, lambda epoch: epoch.get(measure.key))
    timed = [run for run in runs if epochs_of(run)]
    seconds = curve(timed, lambda epoch: number(epoch.get("seconds")) or None)  # zero has no place on a log axis
    _, at_error, at_seconds = np.intersect1d(error.epoch, seconds.epoch, return_indices=True)
    return Curve(seconds.mean[at_seconds], error.mean[at_error], error.low[at_error], error.high[at_error])


def _value_axis(ax: Axes, name: str, values: Sequence[float]) -> None:
    """Name the y axis and scale it: errors in percent, and logarithmic where the values span a lot."""
    ax.set_ylabel(name)
    unit, scale = ("%", 100.0) if name.endswith("error") else ("", 1.0)
    if not _span_axis(ax, "y", values, unit=unit, scale=scale):
        ax.set_ylim(bottom=0 if min(values) >= 0 else None)


def _span_axis(ax: Axes, which: Literal["x", "y"], values: Sequence[float], *, unit: str, scale: float = 1.0) -> bool:
    """Format an axis; make it logarithmic, and return True, if the values span a factor above eight."""
    logarithmic = min(values) > 0 and max(values) / min(values) > 8
    axis = ax.xaxis if which == "x" else ax.yaxis
    if logarithmic:
        ax.set(**{f"{which}scale": "log"})
        decades = math.log10(max(values) / min(values))
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:g}{unit}"))
    return logarithmic


def _label_ends(ax: Axes, curves: Mapping[str, Curve], look: Mapping[str, Look]) -> None:
    """Write each rule's name at the end of its curve, moved apart where the ends lie close together."""
    order = sorted(curves, key=lambda rule: curves[rule].mean[-1])
    to_axes = ax.transScale + ax.transLimits
    ends = [float(to_axes.transform((curves[r].epoch[-1], curves[r].mean[-1]))[1]) for r in order]
    figure_height = ax.get_figure(root=True).get_figheight()  # pyright: ignore[reportOptionalMemberAccess]
    gap = 1.5 * TEXT / (72 * 0.82 * figure_height)
    for rule, y in zip(order, _spread(ends, gap), strict=True):
        end = (curves[rule].epoch[-1], curves[rule].mean[-1])
        label = ax.annotate(
            rule,
            xy=end,
            xytext=(1.03, y),
            textcoords="axes fraction",
            va="center",
            fontsize=TEXT,
            color=INK,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": look[rule].colour,
                "linewidth": 0.9,
                "shrinkA": 2,
                "shrinkB": 5,
                "relpos": (0, 0.5),
            },
        )
        _literal(label)
        _tag(look[rule], label)


def _spread(at: Sequence[float], gap: float) -> list[float]:
    """Return the positions nearest to `at`, which ascends, that lie at least `gap` apart.

    Labels that collide merge into a block centred on the mean of where they would like to be; blocks
    that then collide merge in turn.
    """
    blocks: list[list[float]] = []
    for position in at:
        blocks.append([position])
        while len(blocks) > 1 and _edge(blocks[-2], gap, +1) > _edge(blocks[-1], gap, -1):
            last = blocks.pop()
            blocks[-1] += last
    return [low + gap * (i + 0.5) for block in blocks for low in [_edge(block, gap, -1)] for i in range(len(block))]


def _edge(block: Sequence[float], gap: float, side: int) -> float:
    """Return the upper (side = 1) or lower (-1) end of a block of labels, which stays above the axis."""
    half = gap * len(block) / 2
    return max(float(np.mean(block)), half) + side * half


def _legend(figure: Figure, rules: Sequence[str], look: Mapping[str, Look]) -> None:
    """Put the legend under the panels, in as many columns as its longest name allows; the figure grows."""
    # In text sizes: a letter is about 0.5 wide, line and gap around a name 3.7, a row 1.7 high.
    column = TEXT / 72 * (0.5 * max(map(len, rules)) + 3.7)
    columns = max(1, min(len(rules), int(figure.get_figwidth() / column)))
    rows = math.ceil(len(rules) / columns)
    figure.set_figheight(figure.get_figheight() + 1.7 * rows * TEXT / 72)
    handles = [Line2D([], [], **_line(look[rule])) for rule in rules]
    legend = figure.legend(
        handles,
        rules,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=TEXT,
        labelcolor=INK,
        handlelength=2.4,
        columnspacing=1.6,
    )
    _literal(*legend.get_texts())
    for rule, handle, text in zip(rules, legend.legend_handles, legend.get_texts(), strict=True):
        if handle is not None:
            _tag(look[rule], handle, text)
