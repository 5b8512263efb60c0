"""What holds for the package as a whole: its citations, its files, its contract's refusals."""

import json
import re
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jaxtyping
import pytest

import anyprop as ap
from anyprop._citations import bibliography
from anyprop._files import write_json, write_text
from anyprop.reproductions import REPRODUCTIONS


@pytest.mark.parametrize("name", ap.rules.RULES)
def test_every_rule_cites_its_sources(name):
    rule = ap.rules.RULES[name]
    text = ap.citation(rule)
    assert [f"{{{key}," in text for key in rule.card.source] == [True] * len(rule.card.source)


def test_citations_of_several_rules_name_each_source_once():
    text = ap.citation(ap.DirectFeedbackAlignment(), ap.IndirectFeedbackAlignment())
    assert text.count("nokland2016") == 1


def test_the_citation_of_a_name_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # users run without the type checker
    with pytest.raises(TypeError, match=r"^rules must be .* ap.KolenPollack, not 'kolen-pollack'"):
        ap.citation("kolen-pollack")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_every_reproduction_cites_its_sources(name):
    assert set(REPRODUCTIONS[name].source) <= set(bibliography())


def test_the_bibliography_holds_whole_entries():
    for key, entry in bibliography().items():
        assert entry.count("{") == entry.count("}"), key
        assert re.search(r"title = \{.+\}", entry), key
        assert re.search(r"year = \{\d{4}\}", entry), key


def test_rules_are_found_by_name_and_named_alike():
    assert ap.rules.find("kolen-pollack") is ap.KolenPollack
    assert ap.rules.name_of(ap.KolenPollack()) == "kolen-pollack"
    with pytest.raises(ValueError, match="kolen-pollack"):
        ap.rules.find("kolen-polack")


@pytest.mark.parametrize(
    ("rule", "model", "match"),
    [
        (ap.Backprop(), "net", "must be callable"),
        (ap.Backprop(), lambda x: x, r"ap\.nets\.mlp"),
        (ap.FeedbackAlignment(), eqx.nn.Linear(3, 2, key=jax.random.key(0)), "from_equinox"),
        (ap.FeedbackAlignment(), ap.nets.Chain([ap.nets.Flatten()], input_shape=(3,)), "dense or convolutional"),
        (ap.RealTimeRecurrentLearning(), ap.nets.mlp(3, 2, key=jax.random.key(0)), r"ap\.nets\.elman"),
        (ap.Backprop(), ap.nets.Chain([ap.nets.Flatten()], input_shape=(3,)), "nothing to train"),
    ],
)
def test_models_that_a_rule_cannot_train_are_refused(rule, model, match):
    with pytest.raises(TypeError, match=match):
        rule.init(model, key=jax.random.key(0))


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_null_where_a_number_is_not_finite(tmp_path):
    write_json(tmp_path / "a.json", {"x": [float("nan"), float("inf"), 1.5], 3: None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, None, 1.5], "3": None}


def test_importing_the_package_is_light():
    heavy = "matplotlib, diffrax, optuna, pandas, torch, pytest"
    code = f"import sys, anyprop; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
