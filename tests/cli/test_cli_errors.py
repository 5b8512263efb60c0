"""What a user can get wrong: one clear line, exit status 2, and nothing written."""

import json

import numpy as np
import pytest
from safetensors import SafetensorError

from anyprop.training import _checkpoint, _lock

TINY = "--data small.npz --epochs 1 --net 784-8-10"

WRONG = {
    "train kolen-polak": "kolen-pollack",
    "train backprop --data mnits": "--data mnits is unknown; pass one of: mnist",
    "train backprop --data missing.npz": "missing.npz",
    "train backprop --net 784-8-11": "pass --net 784-256-10",
    "train backprop --net 700-8-10": "784",
    "train backprop --net 784-8-784": "two, or --reconstruct for an auto-encoder",
    "train backprop --net 784-8-10 --reconstruct": "784 outputs are asked for; pass --net 784-256-784",
    "train backprop --data cifar10 --augment flip --reconstruct": "--reconstruct has the stored images for targets",
    "train backprop --net 784-x-10": "sizes joined by '-'",
    "train backprop --net 784-0-10": "--net 784-0-10 must be sizes joined by '-', each of at least 1",
    "train backprop --net 784-²-10": "sizes joined by '-'",
    "train backprop --net lenet6": "lenet5",
    "train backprop --net resnet20 --init zeros": "--init zeros is not an option of --net resnet20",
    "train backprop --activation thanh": "--activation thanh is unknown; pass one of: tanh",
    "train backprop --output-activation sigmod": "--output-activation sigmod is unknown; pass one of: sigmoid",
    "train backprop --net lenet5 --init he-norml": "--init he-norml is unknown; pass one of: he-normal",
    "train backprop --loss cross": "cross-entropy",
    "train backprop --optimizer adamm": "adam",
    "train backprop --momentum 0.9": "--optimizer momentum",
    "train backprop --optimizer momentum --momentum 1.5": "momentum",
    "train backprop --learning-rate 0": "learning_rate must be",
    "train backprop --learning-rate -1": "learning_rate must be",
    "train backprop --epochs 0": "epochs",
    "train backprop --seeds 0": "seeds",
    "train backprop --patience 2": "--validation",
    "train backprop --validation 60000": "validation",
    "train backprop --augment flop": "flip",
    f"train backprop {TINY} --batch-size 301": "--batch-size 301 is more than the 300 training examples",
    f"train backprop {TINY} --resume --overwrite": "one of the two",
    f"train backprop {TINY} --out file": "--out file is not a folder",
    f"train backprop {TINY} --json file/x.json": "is not a folder",
    f"train backprop {TINY} --json new/x.json --out file": "--out file is not a folder",
    f"train backprop {TINY} --json file/new/x.json --out new": "--json file is not a folder",
    f"train straight-through {TINY}": "--activation sign",
    f"train discrete-target-propagation {TINY}": "pass --net 784-500-sign-500-10",
    f"train reinforce {TINY}": "--activation sigmoid, or pass --units gaussian",
    f"train real-time-recurrent-learning {TINY}": "pass --net elman",
    f"train newton {TINY}": "parameters",
    f"train kolen-pollack --decay -1 {TINY}": "decay must be",
    f"compare backprop straight-through {TINY}": "StraightThrough",
    f"compare backprop reinforce {TINY}": "--activation sigmoid, or pass --set reinforce.units=gaussian, which",
    f"compare backprop conductance-perturbation {TINY}": "needs a spiking network",
    "compare backprop backprop": "only once",
    "compare": "names of rules",
    "compare backprop --learning-rate x": "--learning-rate x must be a number",
    "compare backprop --learning-rate kolen-pollack=0.1": "backprop",
    "compare backprop --set backprop.x=1": "no hyper-parameters",
    "compare kolen-pollack --set kolen-pollack.dekay=1": "decay",
    "compare kolen-pollack --set decay=1": "RULE.NAME=VALUE",
    "compare backprop --set kolen-pollack.decay=1": "backprop",
    "compare kolen-pollack --set kolen-pollack.decay=x": "--set kolen-pollack.decay=x: 'x' is no value of decay",
    "compare sign-symmetry --set sign-symmetry.variant=x": "anyprop train sign-symmetry --help shows what is",
    "compare kolen-pollack --set kolen-pollack.decay=0 --set kolen-pollack.decay=1": "two values for kolen-pollack",
    "compare --learning-rate 0.1 backprop newton": "--learning-rate takes all words that follow it, backprop, newton",
    "compare backprop --learning-rate 0.1 newton": "put the names of rules first",
    "compare --augment flip backprop": "--augment takes all words that follow it, backprop too",
    "compare backprop --learning-rate backprop=0.2 backprop=0.3": "--learning-rate has two values for backprop",
    "compare backprop --learning-rate 0.2 0.3": "--learning-rate has two values for all rules",
    "bench kolen-polak": "kolen-pollack",
    "bench --rounds 0": "rounds",
    "bench backprop --data small.npz --net 784-8-10 --rounds 1 --json .": "--json . is a folder",
    "rules --json .": "--json . is a folder",
    "rules --json file/x.json": "--json file is not a folder",
    "data fetch mnits": "mnist",
    "reproduce run nothing-like-it": "reproduction",
}


@pytest.mark.parametrize("line", WRONG)
def test_one_line_and_nothing_written(run, tmp_path, line):
    (tmp_path / "file").write_text("mine")
    status, out, err = run(line)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert WRONG[line] in err
    assert {path.name for path in tmp_path.iterdir()} == {"file", "small.npz"}
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "line", ["", "trian", "train", "train backprop --epohs 2", "train kolen-pollack --decay x", "data"]
)
def test_the_parser_refuses(run, line):
    assert run(line).status == 2


def test_debug_shows_the_traceback(run, monkeypatch):
    monkeypatch.setenv("ANYPROP_DEBUG", "1")
    with pytest.raises(ValueError, match="kolen-pollack"):
        run("train kolen-polak")


def test_divergence(run):
    line = f"train backprop {TINY} --optimizer sgd --learning-rate 1e30 --loss squared-error"
    status, _, err = run(line)
    assert status == 1
    assert "error: the loss of backprop (seed 0) became" in err


def test_results_are_never_replaced_unasked(run, tmp_path):
    line = f"train backprop {TINY} --quiet --out r"
    assert run(line).status == 0
    before = (tmp_path / "r/results.json").read_bytes()
    again = run(line)
    assert again.status == 2
    assert "--resume to go on" in again.err
    assert "--overwrite" in again.err
    assert (tmp_path / "r/results.json").read_bytes() == before

    other = run(f"{line} --learning-rate 0.1 --resume")
    assert other.status == 2
    assert "another --learning-rate (0.001, now 0.1)" in other.err
    assert "or pass another --out" in other.err
    for flag, named in (
        ("--optimizer sgd", "another --optimizer (adam, now sgd)"),
        ("--train-size 200", "another --train-size (300, now 200)"),
        ("--standardise", "another --standardise (False, now True)"),
        ("--augment flip", "another --augment ([], now ['flip'])"),
    ):
        assert named in run(f"{line} {flag} --resume").err
    assert (tmp_path / "r/results.json").read_bytes() == before

    more = run(f"train backprop {TINY.replace('--epochs 1', '--epochs 2')} --quiet --out r --resume")
    assert more == (0, "", "")
    before = (tmp_path / "r/results.json").read_bytes()
    fewer = run(f"{line} --resume")
    assert (fewer.status, fewer.err.count("\n")) == (2, 1)
    assert "has 2 epochs, more than --epochs 1" in fewer.err
    assert (tmp_path / "r/results.json").read_bytes() == before

    assert run(f"{line} --learning-rate 0.1 --overwrite").status == 0
    assert json.loads((tmp_path / "r/results.json").read_text())["settings"]["learning_rate"] == 0.1


def test_resume_does_not_mix_commands_or_lose_a_rule(run, tmp_path):
    for folder in ("compared", "trained"):
        (tmp_path / folder).mkdir()
        record = {"settings": {"rules": {"backprop": {}, "feedback-alignment": {}}}}
        (tmp_path / folder / "results.json").write_text(json.dumps(record))
    (tmp_path / "trained/metrics.jsonl").touch()

    assert (
        "--out compared holds the results of an earlier run"
        in run(f"train backprop {TINY} --out compared --resume").err
    )
    assert "--out trained holds a run of fit" in run(f"compare backprop {TINY} --out trained --resume").err
    assert "results of feedback-alignment" in run(f"compare backprop {TINY} --out compared --resume").err
    assert "damaged" not in run(f"compare backprop {TINY} --out compared --resume").err
    (tmp_path / "compared/results.json").write_text("{")
    assert "damaged" in run(f"compare backprop {TINY} --out compared --resume").err


def test_what_another_run_is_writing_is_not_overwritten(run, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r/results.json").write_text("{}")
    with _lock.alone(tmp_path / "r"):
        status, _, err = run(f"train backprop {TINY} --out r --overwrite")
    assert status == 2
    assert "--out r is in use by another run; wait for its end, or pass another --out" in err
    assert (tmp_path / "r/results.json").read_text() == "{}"


def test_a_full_disk_is_one_line(run, monkeypatch):
    def full(*arguments, **options):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(_checkpoint, "save_file", full)
    status, _, err = run(f"train backprop {TINY} --quiet --out r")
    assert status == 2
    assert err.startswith("error: r/checkpoint.safetensors cannot be written (I/O error: No space left on device")
    assert err.endswith("make room for it, or pass another --out\n")


def test_augmentation_needs_images(run, tmp_path):
    arrays = {f"x_{split}": np.ones((20, 3), "float32") for split in ("train", "test")}
    np.savez(tmp_path / "flat.npz", **arrays, y_train=np.arange(20) % 2, y_test=np.arange(20) % 2)
    err = run("train backprop --data flat.npz --augment flip crop").err
    assert err.startswith("error: --augment flip crop needs images")
    assert err.endswith("pass no --augment\n")
