"""The report of stored results: its numbers, its figures, its page, and what missing parts do to them."""

import itertools
import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from anyprop import report
from anyprop.report import _html, _plots, _records, _words


def epoch(number, error, **rest):
    return {"epoch": number, "train_loss": None if number == 0 else 2 * error, "test_error": error, **rest}


def run(rule, seed, errors, angles=(), ratio=None, rate=None):
    """One run: test errors by epoch from epoch 0 on, one second an epoch, angles at the last."""
    epochs = [epoch(e, error, seconds=float(e)) for e, error in enumerate(errors)]
    if angles:
        epochs[-1]["alignment"] = {f"{i + 1} Dense": angle for i, angle in enumerate(angles)} | {"all": 77.0}
    return {
        "rule": rule,
        "seed": seed,
        "cost": {"steps_per_second": rate, "ratio_to_backprop": ratio},
        "epochs": epochs,
    }


def make_results():
    return {
        "settings": {
            "data": "mnist",
            "net": "784-20-10",
            "epochs": 2,
            "learning_rate": {"backprop": 0.1, "kolen-pollack": 0.05},
            "rules": {"backprop": {}, "kolen-pollack": {"decay": 1e-4}},
            "command": "anyprop compare backprop kolen-pollack",
        },
        "versions": {"anyprop": "0.1.0", "jax": "0.10.2"},
        "runs": [
            run("backprop", 0, [0.9, 0.10, 0.02], (0.0, 0.0), 1.0, 800.0),
            run("backprop", 1, [0.9, 0.12, 0.04], (0.0, 0.0), 1.0, 1000.0),
            run("kolen-pollack", 0, [0.9, 0.20, 0.10], (30.0, 10.0), 0.9, 700.0),
            run("kolen-pollack", 1, [0.9, 0.22, 0.12], (34.0, 14.0), 0.8, 720.0),
        ],
    }


@pytest.fixture
def results():
    return make_results()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write_html(make_results(), path)
    return path.read_text("utf-8")


class Outline(HTMLParser):
    """The tags of a page with their attributes, its text, and the tags that were never closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_summary_of_hand_computed_numbers(results):
    backprop, kolen_pollack = report.summary(results)
    assert [backprop["rule"], kolen_pollack["rule"]] == ["backprop", "kolen-pollack"]
    assert backprop["test_error_mean"] == pytest.approx(0.03)
    assert backprop["test_error_sd"] == pytest.approx(0.02 / math.sqrt(2))
    assert backprop["steps_per_second"] == 900.0
    assert kolen_pollack["ratio_to_backprop"] == pytest.approx(0.85)
    assert kolen_pollack["alignment"] == pytest.approx(22.0)  # (30 + 10 + 34 + 14) / 4, without "all"
    assert math.isnan(kolen_pollack["feedback_alignment"])
    assert kolen_pollack["seconds"] == 2.0


def test_one_seed_has_no_spread(results):
    results["runs"] = results["runs"][:1]
    (record,) = report.summary(results)
    assert record["test_error_mean"] == 0.02
    assert math.isnan(record["test_error_sd"])
    assert "One" not in " ".join(_words.reading([record]))


def test_summary_averages_the_finite_seeds_and_counts_the_others(results):
    results["runs"][2]["epochs"][-1]["test_error"] = math.nan
    results["runs"].append({"rule": "kolen-pollack", "seed": 2, "epochs": []})
    record = report.summary(results)[1]
    assert (record["seeds"], record["finished"], record["test_error_mean"]) == (3, 1, 0.12)
    assert any(s.startswith("2 of 3 seeds of kolen-pollack") for s in _words.reading(report.summary(results)))


def test_a_run_that_names_its_best_epoch_is_summed_up_by_it(results, tmp_path):
    (first, second), rest = results["runs"][:2], results["runs"][2:]
    assert "Last epoch;" in report.table(results).caption
    first |= {"best_epoch": 1, "start": first["epochs"].pop(0)}
    first["epochs"][0]["alignment"] = {"1 Dense": 8.0, "all": 8.0}
    second["best_epoch"] = None
    backprop, _ = report.summary(results)
    assert backprop["test_error_mean"] == pytest.approx((0.10 + 0.04) / 2)
    assert backprop["alignment"] == pytest.approx((8 + 0 + 0) / 3)
    assert backprop["seconds"] == 2.0  # it trained on
    report.write_html(results | {"runs": [first, *rest]}, tmp_path / "report.html")
    runs = (tmp_path / "report.html").read_text("utf-8").split("<summary>Every run")[1]
    assert "<td>0</td><td>2</td><td>10.00%</td>" in runs
    assert "Best epoch on the validation split;" in report.table(results).caption
    first["best_epoch"] = 0
    assert report.summary(results)[0]["test_error_mean"] == pytest.approx((0.9 + 0.04) / 2)


def test_tidy_has_one_flat_record_an_epoch_with_the_same_columns(results):
    records = report.tidy(results)
    assert len(records) == 4 * 3
    assert len({tuple(record) for record in records}) == 1
    last = records[-1]
    assert (last["rule"], last["seed"], last["epoch"], last["test_error"]) == ("kolen-pollack", 1, 2, 0.12)
    assert (last["alignment/1 Dense"], last["cost/ratio_to_backprop"]) == (34.0, 0.8)
    assert math.isnan(records[0]["train_loss"])
    assert math.isnan(records[0]["alignment/1 Dense"])


def test_curve_is_mean_and_range_over_seeds_aligned_by_epoch():
    runs = [
        {"epochs": [epoch(0, 0.9), epoch(1, 0.3)]},
        {"epochs": [epoch(0, 0.7), epoch(1, math.nan)]},
        {"epochs": [epoch(1, 0.5), epoch(2, 0.1)]},
    ]
    c = _records.curve(runs, lambda e: e["test_error"])
    assert c.epoch.tolist() == [0, 1, 2]
    assert c.mean.tolist() == pytest.approx([0.8, 0.4, 0.1])
    assert c.low.tolist() == [0.7, 0.3, 0.1]
    assert c.high.tolist() == [0.9, 0.5, 0.1]


def test_table_shows_percent_ratio_and_angle_in_eighty_columns(results):
    results["runs"].append(run("direct-feedback-alignment", 0, [0.9, 0.5], ratio=1.0))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(report.table(results))
    text = console.export_text()
    for part in ("3.00 ± 1.41%", "900", "0.85×", "22.0°", "direct-feedback-alignment"):
        assert part in text


def test_reading_names_the_best_and_who_is_level():
    def record(rule, mean, sd, n=4):
        return {
            "rule": rule, "seeds": n, "finished": n, "test_error_mean": mean, "test_error_sd": sd,
            "test_loss_mean": 1.0, "test_loss_sd": 1.0, "ratio_to_backprop": math.nan,
        }  # fmt: skip

    # Standard error of a difference of two rules with sd 0.002 over 4 seeds: 0.002 / sqrt(2) = 0.00141.
    records = [record("b", 0.0228, 0.002), record("a", 0.02, 0.002), record("c", 0.0229, 0.002)]
    text = " ".join(_words.reading(records))
    assert text.startswith("The lowest test error is that of a: 2.00 ± 0.20%")
    assert "Within two standard errors of it: b." in text
    assert "Next came c" in text
    alone = " ".join(_words.reading([record("a", 0.02, math.nan, 1), record("b", 0.03, math.nan, 1)]))
    assert "one seed a rule" in alone
    assert "standard error" not in alone


def test_where_no_errors_are_counted_rules_are_judged_by_their_loss(results, tmp_path):
    for each in results["runs"]:
        for e in each["epochs"]:
            e["test_loss"] = 10 * e.pop("test_error")
    backprop, kolen_pollack = report.summary(results)
    assert (backprop["finished"], backprop["test_loss_mean"]) == (2, pytest.approx(0.3))
    assert backprop["test_loss_sd"] == pytest.approx(0.2 / math.sqrt(2))
    assert math.isnan(backprop["test_error_mean"])
    text = " ".join(_words.reading([kolen_pollack, backprop]))
    assert text.startswith("The lowest test loss is that of backprop: 0.3 ± 0.14 ")
    assert "error of" not in text
    table = report.table(results)
    assert [column.header for column in table.columns][:2] == ["rule", "test loss"]
    assert list(table.columns[1].cells) == ["0.3 ± 0.14", "1.1 ± 0.14"]
    assert report.learning_figure(results).axes[0].get_ylabel() == "Test loss"
    assert report.cost_figure(results).axes[0].get_ylabel() == "Test loss"
    report.write_html(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<figure") == 4
    assert "Test loss and its price" in page
    assert "given a wrong label" not in page


@pytest.mark.parametrize("runs", [None, []])
@pytest.mark.parametrize("make", [report.summary, report.tidy, report.table, report.learning_figure])
def test_results_without_runs_are_refused(make, runs):
    with pytest.raises(ValueError, match="no runs"):
        make({"settings": {}, "runs": runs})


def test_write_html_without_runs_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="no runs"):
        report.write_html({"runs": []}, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("plot", [report.plot_learning, report.plot_alignment, report.plot_cost])
def test_plots_are_saved_by_their_ending(results, tmp_path, plot):
    plot(results, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    plot(results, tmp_path / "a.svg")
    assert "kolen-pollack</text>" in (tmp_path / "a.svg").read_text("utf-8")
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg or \.pdf, not 'a\.gif'"):
        plot(results, tmp_path / "a.gif")


def test_a_rule_keeps_its_look_and_more_rules_than_colours_stay_apart():
    rules = ["backprop", *(f"rule-{i}" for i in range(15))]
    looks = _plots.looks(rules)
    assert len({(look.colour, look.dash) for look in looks.values()}) == len(rules)
    assert looks["backprop"].colour == _plots.INK
    assert set(_html.GLYPHS) == set(_plots.MARKERS)
    assert len(_html.DARK) == len(_plots.COLOURS)


def test_labels_keep_their_order_and_their_distance():
    at = [0.0, 0.01, 0.02, 0.5, 0.9, 0.91]
    placed = _plots._spread(at, 0.05)
    assert all(b - a >= 0.05 - 1e-12 for a, b in itertools.pairwise(placed))
    assert placed[3] == pytest.approx(0.5)
    assert placed[0] > 0


def test_unknown_or_unrecorded_metric_is_refused(results):
    with pytest.raises(ValueError, match="metric='test_eror' is unknown"):
        report.learning_figure(results, "test_eror")
    with pytest.raises(ValueError, match="no finite validation_error"):
        report.learning_figure(results, "validation_error")


def test_figures_leave_no_global_state(results):
    import matplotlib

    before = dict(matplotlib.rcParams)
    _plots.svg(report.learning_figure(results))
    assert dict(matplotlib.rcParams) == before


def test_page_holds_everything_and_is_well_formed(page):
    outline = Outline(page)
    assert not outline.open
    assert "Two rules on mnist" in outline.text
    for part in ("decay = 0.0001", "0.05", "0.10.2", "anyprop compare backprop kolen-pollack", "784-20-10"):
        assert part in outline.text
    figures = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert len(figures) == 2 * 4
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in figures)
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in outline.tags if tag == "th")
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_page_loads_nothing(page):
    tags = Outline(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "img", "object", "embed"}
    for _, attributes in tags:
        assert "src" not in attributes
        assert all(attributes.get(name, "#").startswith("#") for name in ("href", "xlink:href"))
    assert "@import" not in page
    assert "://" not in page


def test_page_and_figures_follow_the_colours_of_the_reader(page):
    drawings = page[page.index("<svg") :]
    assert "prefers-color-scheme: dark" in page
    assert not any(colour in drawings for colour in (_plots.INK, _plots.PAPER, *_plots.COLOURS))


def test_page_is_the_same_for_the_same_results(results, page, tmp_path):
    report.write_html(json.loads(json.dumps(results)), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text("utf-8") == page


def test_every_text_is_escaped(results, tmp_path):
    evil = "<b>$x$ \"&'"
    for each in results["runs"][2:]:
        each["rule"] = evil
        each["epochs"][-1]["alignment"] = {evil: 10.0}
    results["settings"] = {
        "data": evil,
        "net": evil,
        evil: evil,
        "command": evil,
        "rules": {evil: {evil: evil}},
    }
    results["settings"]["learning_rate"] = {evil: evil}
    results["versions"] = {evil: evil}
    report.write_html(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    outline = Outline(page)
    assert not any(tag == "b" for tag, _ in outline.tags)
    assert evil in outline.text
    assert "&lt;b&gt;$x$" in page[page.index("<svg") :]


def _without(*names):
    def change(results):
        for each in results["runs"]:
            for part in [each, *each["epochs"]]:
                for name in names:
                    part.pop(name, None)

    return change


def _only_rules(results):
    results["runs"] = [
        {"rule": "backprop"},
        {"rule": "kolen-pollack", "seed": None, "epochs": None, "cost": None},
    ]
    del results["settings"], results["versions"]


def _all_null(results):
    for each in results["runs"]:
        each["cost"] = dict.fromkeys(each["cost"])
        each["epochs"] = [dict.fromkeys(e) | {"epoch": e["epoch"]} for e in each["epochs"]]


def _diverged(results):
    for each in results["runs"][2:]:
        for e in each["epochs"][1:]:
            e |= {"test_error": math.nan, "train_loss": math.inf, "alignment": {"1 Dense": math.nan}}


@pytest.mark.parametrize(
    ("change", "figures"),
    [
        (_without("cost", "seconds"), 3),
        (_without("alignment", "epoch"), 3),
        (_without("test_error"), 2),
        (_only_rules, 0),
        (_all_null, 0),
        (_diverged, 4),
    ],
)
def test_missing_parts_are_left_out(results, tmp_path, change, figures):
    change(results)
    report.write_html(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<figure") == figures
    assert "nan" not in Outline(page).text
    report.table(results)
    report.tidy(results)


def test_an_error_of_zero_is_drawn_on_a_linear_axis(results):
    assert report.learning_figure(results).axes[0].get_yscale() == "log"
    for each in results["runs"]:
        each["epochs"][-1]["test_error"] = 0.0
    assert report.learning_figure(results).axes[0].get_yscale() == "linear"
    assert report.cost_figure(results).axes[1].get_yscale() == "linear"


def test_a_failing_write_leaves_the_old_file_and_no_draft(results, tmp_path, monkeypatch):
    _only_rules(results)
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write_html(results, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_report_waits_with_matplotlib_and_never_imports_pyplot():
    code = (
        "import sys, anyprop.report as report; assert 'matplotlib' not in sys.modules;"
        "report.write_html; assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'plot_lerning'"):
        _ = report.plot_lerning


def test_style_sheet_names_no_file():
    assert "url(" not in Path(_html.__file__).with_name("style.css").read_text("utf-8")
