"""The report: one file that needs nothing else, to look at, to print, to send to a colleague."""

import importlib.resources
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .._files import write_bytes
from . import _plots
from ._plots import Look, NothingToDrawError, alignment_figure, cost_figure, learning_figure, looks, svg
from ._records import Results, Run, end_of, epochs_of, layers, number, runs_by_rule, summary
from ._words import (
    NOTHING,
    Measure,
    Record,
    angle,
    count,
    duration,
    listing,
    loss,
    percent,
    rate,
    ratio,
    reading,
)

WIDE, SMALL = 9.0, 4.4
"""Widths of a figure's two forms, in inches; style.css shows the one that fits the screen."""

GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "*": "★", "<": "◀", ">": "▶"}
DARK = ("#4aa3df", "#f0803c", "#2fbf91", "#e08cc0", "#e6a83a", "#7cc8f2")
"""The colours of `_plots.COLOURS` for a dark page."""

MEANING = {"test_error": "share of test examples given a wrong label", "test_loss": "mean cost of the test examples"}
"""What rules are judged by, by the key of a `Measure`."""


def write_html(results: Results, path: str | os.PathLike[str]) -> None:
    """Write the report of a comparison as one HTML file without scripts or anything to fetch.

    It says in words what happened and shows the summary, the learning curves, the alignment of every
    layer, what accuracy cost, and all settings. Sections whose numbers were not recorded are left out.

    Args:
        results: what a comparison stored; see `anyprop.report`.
        path: file to write. It is replaced in one step: a failure leaves an older report as it was.

    Raises:
        ValueError: the results hold no runs.
    """
    write_bytes(Path(path), _page(results).encode())


def _page(results: Results) -> str:
    runs = runs_by_rule(results)
    records = summary(results)
    look = looks(list(runs))
    settings = results.get("settings") or {}
    title = _title(list(runs), settings)
    measure = Measure.of(records)
    sections = [
        _header(title, settings, records),
        _summary_section(records, look, measure),
        _learning_section(results, records, measure),
        _alignment_section(results, records),
        _cost_section(results, records, measure),
        _settings_section(settings, results.get("versions") or {}, look),
        _runs_section(runs, look),
    ]
    body = "\n".join(filter(None, sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{_style(look)}
</style>
</head>
<body>
<main>
{body}
<footer>Made by anyprop from results.json. One file, no scripts, nothing fetched.</footer>
</main>
</body>
</html>
"""


def _style(look: Mapping[str, Look]) -> str:
    """Return the style sheet: the packaged one, the colours of the rules, and what pointing at one does."""
    sheet = importlib.resources.files("anyprop.report").joinpath("style.css").read_text("utf-8")
    light = " ".join(f"--c{i}: {colour};" for i, colour in enumerate(_plots.COLOURS))
    dark = " ".join(f"--c{i}: {colour};" for i, colour in enumerate(DARK))
    single_out = "\n".join(
        f"main:has(.pick-{k}:hover) .rule:not(.rule-{k}), svg:has(.rule-{k}:hover) .rule:not(.rule-{k}) "
        "{ opacity: 0.12; }"
        for k in (each.place for each in look.values())
    )
    return f"""{sheet}
:root {{ {light} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
{single_out}"""


def _title(rules: Sequence[str], settings: Mapping[str, Any]) -> str:
    what = rules[0] if len(rules) == 1 else count(len(rules), "rule")
    data = f" on {settings['data']}" if settings.get("data") else ""
    return f"{what[0].upper()}{what[1:]}{data}"


def _header(title: str, settings: Mapping[str, Any], records: Sequence[Record]) -> str:
    facts = [str(settings[name]) for name in ("net", "activation", "optimizer") if isinstance(settings.get(name), str)]
    facts += [count(settings["epochs"], "epoch")] if isinstance(settings.get("epochs"), int) else []
    facts += [count(max(r["seeds"] for r in records), "seed")]
    sentences = " ".join(reading(records)).replace(" ± ", "\u00a0±\u00a0")  # kept on one line
    return f"""<header>
<h1>{escape(title)}</h1>
<p class="setting">{escape(" · ".join(facts))}</p>
<p class="reading">{escape(sentences)}</p>
</header>"""


def _summary_section(records: Sequence[Record], look: Mapping[str, Look], measure: Measure) -> str:
    ranked, judged = measure.ranked(records), f"{measure.key}_mean"
    rows = [*ranked, *(r for r in records if r not in ranked)]
    columns: list[tuple[str, str, Callable[[Record], str]]] = [
        (judged, measure.name.capitalize(), measure.with_spread),
        ("alignment", "Angle to the<br>exact gradient", lambda r: angle(r["alignment"])),
        ("feedback_alignment", "Feedback to<br>forward weights", lambda r: angle(r["feedback_alignment"])),
        ("steps_per_second", "Steps<br>per second", lambda r: rate(r["steps_per_second"])),
        ("ratio_to_backprop", "Speed, relative<br>to backprop", lambda r: ratio(r["ratio_to_backprop"])),
        ("seconds", "Training<br>time", lambda r: duration(r["seconds"])),
    ]
    columns = [column for column in columns if any(math.isfinite(r[column[0]]) for r in rows)]
    longest = {key: max(r[key] for r in rows if math.isfinite(r[key])) for key, *_ in columns}
    with_bars = {judged, "alignment", "ratio_to_backprop"}
    head = "".join(f'<th scope="col">{heading}</th>' for _, heading, _ in columns)
    body = "\n".join(
        f'<tr class="pick-{look[r["rule"]].place}{" best" if ranked and r is ranked[0] else ""}">'
        f'<th scope="row">{_mark(look[r["rule"]])}{escape(r["rule"])}</th>'
        + "".join(
            f"<td>{show(r)}{_bar(r[key], longest[key], look[r['rule']]) if key in with_bars else ''}</td>"
            for key, _, show in columns
        )
        + "</tr>"
        for r in rows
    )
    feedback = (
        "Feedback to forward weights: angle between the weights that carry errors down and those that carry "
        "activity up. "
        if "feedback_alignment" in longest
        else ""
    )
    return f"""<section>
<h2>Summary</h2>
<div class="card">
<p class="note" id="about-summary">Rules at their last epoch, or with patience each run at its best one on the
validation split, lowest {measure.name} first; no epoch is chosen by its {measure.name}. Bars start at zero.</p>
<div class="scroll" tabindex="0"><table aria-labelledby="about-summary">
<thead><tr><th scope="col">Rule</th>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
<p class="note">{measure.name.capitalize()}: {MEANING[measure.key]}, mean ± standard deviation over seeds.
Angle to the exact gradient: mean over layers and seeds; at 0° the update points along the gradient, at 90°
across it.
{feedback}Speed: median over seeds, compilation excluded.</p>
</div>
</section>"""


def _learning_section(results: Results, records: Sequence[Record], measure: Measure) -> str:
    name, ends = measure.name.capitalize(), _spoken(records, f"{measure.key}_mean", measure.number)
    cards = [
        _card(
            name,
            lambda width: learning_figure(results, measure.key, width=width),
            f"{MEANING[measure.key].capitalize()} after each epoch (epoch 0: before training). "
            "Line: mean over the seeds. Band: from the best seed to the worst.",
            f"{name} over epochs. At the epoch of the summary: {ends}.",
        ),
        _card(
            "Training loss",
            lambda width: learning_figure(results, "train_loss", width=width),
            "Mean cost of the training examples in each epoch. "
            "Line: mean over the seeds. Band: from the lowest seed to the highest.",
            "Training loss over epochs, one line a rule.",
        ),
    ]
    return _section("Learning", cards)


def _alignment_section(results: Results, records: Sequence[Record]) -> str:
    card = _card(
        "Angle to the exact gradient, by layer",
        lambda width: alignment_figure(results, width=width),
        "Angle between the update a rule proposes and the exact gradient on the same examples, for the "
        "weights of each layer. 0° is backprop's direction; at 90° (dotted) the update neither lowers "
        "nor raises the cost, and above it raises it. "
        "Line: mean over the seeds. Band: from the lowest seed to the highest.",
        f"Alignment angle over epochs, layer by layer: {', '.join(layers(results))}. "
        f"Mean over layers at the epoch of the summary: {_spoken(records, 'alignment', angle)}.",
    )
    return _section("Alignment", [card])


def _cost_section(results: Results, records: Sequence[Record], measure: Measure) -> str:
    name = measure.name.capitalize()
    card = _card(
        f"{name} and its price",
        lambda width: cost_figure(results, width=width),
        f"{name} against the training time it took; and that of the summary against the rule's steps per "
        "second divided by those of backprop (dotted). Down is better; quicker is left where the axis "
        "is time, right where it is speed. Compilation is not counted. "
        "Bands span the seeds; error bars are standard deviations.",
        f"{name} against cost. Speed relative to backprop: {_spoken(records, 'ratio_to_backprop', ratio)}.",
    )
    return _section("Cost", [card])


def _section(heading: str, cards: Iterable[str]) -> str:
    body = "\n".join(filter(None, cards))
    return f"<section>\n<h2>{heading}</h2>\n{body}\n</section>" if body else ""


def _card(heading: str, draw: Callable[[float], Figure], caption: str, alternative: str) -> str:
    """Return a figure in both of its forms, or nothing where there is nothing to draw."""
    try:
        wide, small = draw(WIDE), draw(SMALL)
    except NothingToDrawError:
        return ""
    name = re.sub(r"\W+", "-", heading.lower())
    return f"""<figure class="card">
<h3>{heading}</h3>
<div class="figure wide">{_inline(wide, f"{name}-wide", alternative)}</div>
<div class="figure small">{_inline(small, f"{name}-small", alternative)}</div>
<figcaption>{caption}</figcaption>
</figure>"""


def _inline(figure: Figure, name: str, alternative: str) -> str:
    """Return a figure as an element of the page: its ids unique in it, its colours those of the page."""
    text = svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    variables = {_plots.INK: "--ink", _plots.MUTED: "--muted", _plots.GRID: "--grid", _plots.PAPER: "--paper"}
    variables |= {colour: f"--c{i}" for i, colour in enumerate(_plots.COLOURS)}
    for colour, variable in variables.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alternative)}" ', 1)


def _spoken(records: Sequence[Record], key: str, show: Callable[[float], str]) -> str:
    known = [f"{r['rule']} {show(r[key])}" for r in records if math.isfinite(r[key])]
    return listing(known) if known else "not recorded"


def _mark(look: Look) -> str:
    # The last character asks for the plain sign where a font also has a coloured picture.
    glyph = GLYPHS[look.marker] + "\ufe0e"
    return f'<span class="mark" aria-hidden="true" style="color: {_colour(look)}">{glyph}</span>'


def _bar(value: float, longest: float, look: Look) -> str:
    if not (math.isfinite(value) and longest > 0):
        return ""
    share = 100 * max(value, 0) / longest
    return f'<span class="bar"><span style="width: {share:.1f}%; --colour: {_colour(look)}"></span></span>'


def _colour(look: Look) -> str:
    return "var(--ink)" if look.colour == _plots.INK else f"var(--c{_plots.COLOURS.index(look.colour)})"


def _settings_section(settings: Mapping[str, Any], versions: Mapping[str, Any], look: Mapping[str, Look]) -> str:
    rules = settings.get("rules") or {}
    per_rule = {
        name: value
        for name, value in settings.items()
        if name != "rules" and isinstance(value, Mapping) and not look.keys().isdisjoint(value)
    }
    shared = {name: value for name, value in settings.items() if name not in {"rules", "command", *per_rule}}
    rows = "\n".join(
        f'<tr class="pick-{each.place}"><th scope="row">{_mark(each)}{escape(rule)}</th>'
        + "".join(f"<td>{_value(values.get(rule))}</td>" for values in per_rule.values())
        + f'<td class="words">{_hyper_parameters(rules.get(rule))}</td></tr>'
        for rule, each in look.items()
    )
    head = "".join(f'<th scope="col">{escape(_name(name))}</th>' for name in per_rule)
    lists = [
        f'<div class="card"><h3>{heading}</h3>{_definitions(values)}</div>'
        for heading, values in (("Shared by all rules", shared), ("Made with", versions))
        if values
    ]
    command = settings.get("command")
    return f"""<section>
<h2>Settings</h2>
{f'<div class="card"><h3>Command</h3><pre>{escape(str(command))}</pre></div>' if command else ""}
<div class="card">
<h3>Each rule</h3>
<div class="scroll" tabindex="0"><table>
<thead><tr><th scope="col">Rule</th>{head}<th scope="col" class="words">Hyper-parameters</th></tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
</div>
<div class="columns">{"".join(lists)}</div>
</section>"""


def _hyper_parameters(values: Any) -> str:
    if not isinstance(values, Mapping) or not values:
        return '<span class="note">none</span>'
    return " ".join(f"<code>{escape(str(name))} = {_value(value)}</code>" for name, value in values.items())


def _definitions(values: Mapping[str, Any]) -> str:
    items = "".join(f"<dt>{escape(_name(name))}</dt><dd>{_value(value)}</dd>" for name, value in values.items())
    return f"<dl>{items}</dl>"


def _name(key: str) -> str:
    return str(key).replace("_", " ")


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(name))} {_value(inner)}" for name, inner in value.items())
    return escape(f"{value:g}" if isinstance(value, float) else str(value))


def _runs_section(runs: Mapping[str, Sequence[Run]], look: Mapping[str, Look]) -> str:
    """Every run at the epoch of the summary: the numbers behind the means."""
    rows = "\n".join(
        f'<tr class="pick-{look[rule].place}"><th scope="row">{_mark(look[rule])}{escape(rule)}</th>'
        f"<td>{_value(run.get('seed'))}</td><td>{sum(e.get('epoch') != 0 for e in epochs_of(run))}</td>"
        f"<td>{percent(number(end.get('test_error')))}</td><td>{loss(number(end.get('test_loss')))}</td>"
        f"<td>{loss(number(end.get('train_loss')))}</td><td>{duration(number(last.get('seconds')))}</td></tr>"
        for rule, each in runs.items()
        for run in each
        for last, end in [(epochs_of(run)[-1] if epochs_of(run) else {}, end_of(run))]
    )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Rule", "Seed", "Epochs", "Test error", "Test loss", "Training loss", "Training time")
    )
    return f"""<section>
<details class="card">
<summary>Every run</summary>
<div class="scroll" tabindex="0"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
</details>
</section>"""
