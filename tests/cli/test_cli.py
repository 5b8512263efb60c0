"""What each command prints and writes."""

import functools
import json
import runpy
import subprocess
import sys
from importlib.metadata import version

import jax
import numpy as np
import optax
import pytest

import anyprop as ap
from anyprop.cli import _setup, main
from anyprop.cli._flags import Examples, Network
from anyprop.cli._optimizers import optimizer_of
from anyprop.cli._train import TrainTraining
from anyprop.reproductions import Claim, Options, Reproduction
from anyprop.rules import RULES

TINY = "--data small.npz --epochs 1 --net 784-8-10"


def read(path):
    return json.loads(path.read_text())


def test_version(run):
    assert run("--version") == (0, f"anyprop {version('anyprop')}\n", "")


def test_the_package_is_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["anyprop", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("anyprop", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"anyprop {version('anyprop')}\n"


def test_help_names_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    for command in ("rules", "train", "compare", "data", "bench", "reproduce"):
        assert f"• {command} " in out


def test_rules_lists_every_rule(run, tmp_path):
    status, out, _ = run("rules --json rules.json")
    assert status == 0
    listed = read(tmp_path / "rules.json")
    assert [record["name"] for record in listed] == list(RULES)
    for record, rule in zip(listed, RULES.values(), strict=True):
        assert record["name"] in out
        assert record["dossier"] == list(rule.card.dossier)
        assert {"name", "family", "needs", "source", "dossier"} <= set(record)
    kolen = next(record for record in listed if record["name"] == "kolen-pollack")
    assert (kolen["family"], kolen["needs"], kolen["title"]) == ("feedback", "a chain", "Kolen-Pollack")


@pytest.mark.parametrize("command", ["--help", "rules"])
def test_answers_without_the_heavy_imports(command):
    code = (
        "import sys; from anyprop.cli import main\n"
        f"try: main([{command!r}])\n"
        "except SystemExit: pass\n"
        "assert not {'matplotlib', 'diffrax', 'pandas', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("rule", RULES)
def test_every_hyper_parameter_is_a_flag_with_the_help_of_the_docstring(run, rule):
    status, out, _ = run(f"train {rule} --help")
    assert status == 0
    words = " ".join(out.replace("│", " ").split())
    for name, value in ap.contract.hyperparameters(RULES[rule]()).items():
        if name != "loss":
            flag = name.replace("_", "-")
            assert f"--{flag} " in words or f"--{flag}, --no-{flag}" in words
            assert f"(default: {value})" in words
    assert "--learning-rate FLOAT" in words


def test_help_of_kolen_pollack(run):
    words = " ".join(run("train kolen-pollack --help").out.replace("│", " ").split())
    assert "--decay FLOAT lambda, weight decay of W and B, 0 or more." in words
    words = " ".join(run("train sign-symmetry --help").out.replace("│", " ").split())
    assert "--variant {uSF,brSF,frSF}" in words


def test_train_writes_results_and_a_table(run, tmp_path):
    flags = "--decay 0.01 --optimizer momentum --momentum 0.5 --learning-rate 0.05 --json all.json"
    line = f"train kolen-pollack {TINY} {flags}"
    status, out, err = run(line)
    assert status == 0, err
    assert "kolen-pollack" in out
    assert "runs/train-kolen-pollack/results.json" in err
    results = read(tmp_path / "runs/train-kolen-pollack/results.json")
    assert results == read(tmp_path / "all.json")
    settings = results["settings"]
    assert settings["command"] == f"anyprop {line}"
    recorded = {name: settings[name] for name in ("net", "activation", "loss", "optimizer", "learning_rate")}
    assert recorded == {
        "net": "784-8-10",
        "activation": "tanh",
        "loss": "cross-entropy",
        "optimizer": "momentum",
        "learning_rate": 0.05,
    }
    assert settings["rules"]["kolen-pollack"]["decay"] == 0.01
    (only,) = results["runs"]
    assert (only["rule"], only["seed"]) == ("kolen-pollack", 0)
    last = only["epochs"][-1]
    assert last["epoch"] == 1
    assert 0 < last["test_error"] < 1
    assert {"train_loss", "test_loss", "seconds"} <= set(last)

    data, net = ap.data.load(tmp_path / "small.npz"), functools.partial(ap.nets.mlp, 784, 8, 10)
    own = ap.fit(
        ap.KolenPollack(decay=0.01), net, data, optimizer=optax.sgd(0.05, momentum=0.5), epochs=1, progress=False
    )
    assert last["test_loss"] == own.results["runs"][0]["epochs"][-1]["test_loss"]


def test_an_auto_encoder_learns_its_own_inputs(run, tmp_path):
    flags = "--reconstruct --data small.npz --train-size 100 --net 784-8-4-8-784 --loss squared-error"
    status, _, err = run(f"compare backprop target-propagation-em {flags} --epochs 2 --seeds 1 --learning-rate 0.01")
    assert status == 0, err
    results = read(tmp_path / "runs/compare/results.json")
    assert results["settings"]["reconstruct"] is True
    for learned in results["runs"]:
        first, last = (epoch["test_loss"] for epoch in learned["epochs"])
        assert last < first
    status, _, err = run(f"bench target-propagation-em {flags} --batch-size 10 --rounds 1 --json b.json")
    assert status == 0, err
    assert list(read(tmp_path / "b.json")["rules"]) == ["backprop", "target-propagation-em"]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("--out weight-mirror kolen-pollack --decay 0.5", "kolen-pollack"),
        ("--out backprop kolen-pollack --decay 0.5", "kolen-pollack"),
        ("--out=backprop --quiet kolen-pollack --decay 0.5", "kolen-pollack"),
        ("--decay 0.5 kolen-pollack --out weight-mirror", "kolen-pollack"),
        ("--exact-output sign-symmetry --variant frSF", "sign-symmetry"),
        ("--no_exact_output sign-symmetry --variant frSF", "sign-symmetry"),
    ],
)
def test_train_has_the_flags_of_the_rule_that_it_trains(run, monkeypatch, line, rule):
    def built(kind, values, loss):
        assert (ap.rules.name_of(kind), loss) == (rule, None)
        raise ValueError(f"{values}")

    monkeypatch.setattr("anyprop.cli._train.build_rule", built)
    status, _, err = run(f"train {line}")
    assert status == 2
    assert "'decay': 0.5" in err or "'variant': 'frSF'" in err


def test_compare_gives_each_rule_its_own_rate_and_hyper_parameters(run, tmp_path):
    status, out, err = run(
        f"compare kolen-pollack sign-symmetry {TINY} --seeds 2 --learning-rate 0.01 kolen-pollack=0.002 "
        "--set kolen-pollack.decay=0.5 --set sign-symmetry.exact-output=True --set sign-symmetry.variant=frSF "
        "--validation 100"
    )
    assert status == 0, err
    results = read(tmp_path / "runs/compare/results.json")
    rules = results["settings"]["rules"]
    assert rules["kolen-pollack"]["decay"] == 0.5
    assert rules["sign-symmetry"]["exact_output"] is True
    assert rules["sign-symmetry"]["variant"] == "frSF"
    rates = {"kolen-pollack": 0.002, "sign-symmetry": 0.01}
    assert results["settings"]["learning_rate"] == rates
    assert results["settings"]["validation"] == 100
    assert [(r["rule"], r["seed"]) for r in results["runs"]] == [(rule, seed) for rule in rates for seed in (0, 1)]
    assert all(rule in out for rule in rates)
    assert (tmp_path / "runs/compare/report.html").read_text().startswith("<!DOCTYPE html>")


def test_quiet_prints_nothing(run):
    assert run(f"train backprop {TINY} --quiet") == (0, "", "")


def plan(data, rule="backprop", **network):
    flags = Network(**network), Examples(data=str(data)), TrainTraining()
    return _setup.plan({rule: RULES[rule]()}, *flags, {rule: 0.1}, f"anyprop train {rule}")


def test_a_network_by_name_and_its_options(run, tmp_path):
    del run  # only for the data that it lays out
    made = plan(tmp_path / "small.npz", net="elman", activation="sigmoid")
    assert made.net(key=jax.random.key(0)).input_shape == (28, 28)
    assert (made.settings["net"], made.settings["activation"]) == ("elman", "sigmoid")
    assert "init" not in made.settings


def test_sizes_are_a_spiking_networks_for_the_rule_that_needs_one(run, tmp_path):
    del run  # only for the data that it lays out
    made = plan(tmp_path / "small.npz", "conductance-perturbation", net="784-6-10")
    model = made.net(key=jax.random.key(0))
    assert isinstance(model, ap.nets.SpikingNetwork)
    assert [weight.shape for weight in model.weights] == [(784, 6), (6, 10)]
    assert made.settings["net"] == "784-6-10"
    with pytest.raises(ValueError, match="activation=tanh is not an option of net=784-6-10"):
        plan(tmp_path / "small.npz", "conductance-perturbation", net="784-6-10", activation="tanh")


def test_a_sign_between_two_sizes(run, tmp_path):
    del run  # only for the data that it lays out
    made = plan(tmp_path / "small.npz", net="784-8-sign-6-10")
    kinds = [type(stage).__name__ for stage in made.net(key=jax.random.key(0)).stages]
    assert kinds == ["Dense", "Activate", "Dense", "Dense"]


@pytest.fixture
def own(tmp_path):
    """The path of a file of data of one's own, with so many classes."""

    def save(classes):
        arrays = {f"x_{split}": np.ones((200, 3), "float32") for split in ("train", "test")}
        np.savez(tmp_path / "own.npz", **arrays, y_train=np.arange(200) % classes, y_test=np.arange(200) % classes)
        return tmp_path / "own.npz"

    return save


def test_the_default_network_fits_the_data(own):
    made = plan(own(classes=4))
    assert made.net(key=jax.random.key(0)).input_shape == (3,)
    assert made.settings["net"] == "3-256-4"


def test_the_last_layer_may_have_units_of_its_own(own):
    made = plan(own(classes=4), "equilibrium-propagation", net="3-5-4", output_activation="hard-sigmoid")
    assert made.settings["output_activation"] == "hard-sigmoid"
    *_, last = made.net(key=jax.random.key(0)).stages
    assert last.activation is ap.nets.activation("hard-sigmoid")
    with pytest.raises(ValueError, match="output_activation=tanh is not an option of net=lenet5"):
        plan("mnist", net="lenet5", output_activation="tanh")


def test_one_output_is_enough_for_two_classes(own):
    assert plan(own(classes=2), "admm", net="3-4-1", activation="relu").settings["net"] == "3-4-1"
    with pytest.raises(ValueError, match="pass net=3-256-4"):
        plan(own(classes=4), "admm", net="3-4-1", activation="relu")
    with pytest.raises(ValueError, match="pass loss='binary-cross-entropy'"):
        plan(own(classes=2), net="3-4-1")


def test_bench(run, tmp_path):
    status, out, err = run(
        "bench weight-perturbation reinforce --data small.npz --net 784-8-10 --batch-size 20 --rounds 3 --json b.json"
    )
    assert status == 0, err
    results = read(tmp_path / "b.json")
    assert set(results["rules"]) == {"backprop", "weight-perturbation"}
    assert results["rules"]["backprop"]["ratio_to_backprop"] == 1
    assert results["rules"]["weight-perturbation"]["steps_per_second"] > 0
    assert "--activation sigmoid" in results["skipped"]["reinforce"]
    assert "sigmoid" in out


def test_bench_gives_each_rule_its_rate_over_that_of_backprop(run, tmp_path):
    line = (
        "bench finite-differences reinforce --data small.npz --net 784-1-10 --batch-size 10 --rounds 3 --json b.json "
        "--quiet"
    )
    status, out, err = run(line)
    assert (status, out, err.count("\n")) == (0, "", 1)
    assert err.startswith("reinforce is not timed: ")
    rules = read(tmp_path / "b.json")["rules"]
    assert list(rules) == ["backprop", "finite-differences"]
    assert rules["backprop"]["ratio_to_backprop"] == 1.0
    assert rules["finite-differences"]["ratio_to_backprop"] > 0


def test_data_commands(run):
    assert "in the package" in run("data list").out
    assert run("data where mnist").out.startswith("found")
    status, out, _ = run("data verify mnist")
    assert (status, out[:2]) == (0, "ok")
    assert run("data fetch mnist").status == 0


def test_data_verify_reports_an_altered_file(run, tmp_path, monkeypatch):
    monkeypatch.setenv("ANYPROP_DATA", str(tmp_path))
    (tmp_path / "cifar100").mkdir()
    (tmp_path / "cifar100/cifar-100-binary.tar.gz").write_bytes(b"not that")
    status, out, _ = run("data verify cifar100")
    assert (status, out[:3]) == (1, "BAD")


def test_reproduce(run, tmp_path, monkeypatch):
    seen = []

    def experiment(options: Options):
        seen.append(options)
        return {"test error": [2.0, 2.2]}, {"note": "tiny"}

    claim = Claim("test error", 2.16, "%", 0.3, "paper")
    fake = Reproduction("tiny", "A tiny one", ("nobody2000",), (claim,), 2, 1, 2700.0, experiment)
    monkeypatch.setitem(ap.cli._reproduce.REPRODUCTIONS, "tiny", fake)
    (row,) = (line for line in run("reproduce list").out.splitlines() if "A tiny one" in line)
    assert row.split()[-2:] == ["45", "h"]
    status, out, err = run("reproduce run tiny --out r --epochs 2")
    assert status == 0, err
    assert "2.16 %" in out
    assert "2.1 ± 0.14 %" in out
    assert read(tmp_path / "r/result.json")["claims"][0]["reproduced"] is True
    assert (seen[0].epochs, seen[0].seeds, seen[0].resume) == (2, None, False)
    again = run("reproduce run tiny --out r")
    assert again.status == 2
    assert "--resume" in again.err
    assert run("reproduce run tiny --out r --resume").status == 0
    assert seen[-1].resume


def test_reproduce_says_what_is_missed_and_why(run, monkeypatch):
    """A training cut short comes before our own guess; what is reproduced needs neither."""

    def reproduced(value, guess, line):
        claim = Claim("test error", value, "%", 0.3, "paper")
        measured = {"test error": [2.0]}, {}
        fake = Reproduction("tiny", "A tiny one", (), (claim,), 2, 1, 1.0, lambda options: measured, guess)
        monkeypatch.setitem(ap.cli._reproduce.REPRODUCTIONS, "tiny", fake)
        return run(f"reproduce run tiny --out r --resume {line}").out

    assert "Our guess why: The rate." in reproduced(1.0, "The rate.", "")
    assert "Our guess why: The training was cut short. The rate." in reproduced(1.0, "The rate.", "--epochs 1")
    assert "Our guess why: The training was cut short." in reproduced(1.0, "", "--epochs 1")
    assert "guess" not in reproduced(1.0, "", "")
    assert "guess" not in reproduced(2.0, "The rate.", "--epochs 1")


def test_an_interrupt_says_how_to_go_on(run, monkeypatch, capsys):
    del run  # only for the folder and the data

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("anyprop.cli._train.fit", interrupted)
    assert main(["train", "backprop", *TINY.split(), "--out", "two words", "--overwrite"]) == 130
    expected = f"go on with: anyprop train backprop {TINY} --out 'two words' --resume"
    assert expected in capsys.readouterr().err


def test_without_an_optimizer_each_rule_gets_the_one_that_suits_it():
    rules = {"backprop": ap.Backprop(), "admm": ap.ADMM(), "newton": ap.Newton()}

    def chosen(rates, optimizer=None):
        names = [optimizer_of(rule, optimizer) for rule in rules.values()]
        return list(zip(names, _setup.learning_rates(rates, rules, optimizer).values(), strict=True))

    assert chosen(()) == [("adam", 1e-3), ("sgd", 1.0), ("sgd", 1.0)]
    assert chosen(("0.01", "newton=0.5")) == [("adam", 0.01), ("sgd", 1.0), ("sgd", 0.5)]
    assert chosen(("0.01",), "sgd") == [("sgd", 0.01)] * 3
    assert chosen((), "momentum") == [("momentum", 0.01)] * 3
