"""The reproductions about what equilibrium propagation computes: the nets and the rows of their tables."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from anyprop.energies import Convergent, Hopfield
from anyprop.nets import affines
from anyprop.reproductions import Options, _ep_noise, _ep_theorem, _gdu
from anyprop.reproductions._reproduction import outcome


def test_the_curves_of_the_largest_gradients_are_drawn(tmp_path):
    gradients = jnp.arange(24.0).reshape(2, 3, 4)
    found = _gdu.largest(gradients + 0.1, gradients)
    np.testing.assert_array_equal(found["gradients"], gradients.reshape(2, 12)[:, [11, 10, 9, 8]])
    np.testing.assert_array_equal(found["updates"], found["gradients"] + jnp.float32(0.1))
    lines = {kind: values.T.tolist() for kind, values in found.items()}
    nets = {"shallow": {"stages[0].weight": lines}, "deep": {"stages[0].weight": lines, "stages[1].weight": lines}}
    _gdu.plot(nets, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").stat().st_size > 10_000


def test_every_row_of_the_noise_table_is_trained_as_its_name_says():
    rules = {name: _ep_noise.experiment(name).rule for name in _ep_noise.PUBLISHED}
    seen = {name: (rule.radius, rule.points, rule.noise) for name, rule in rules.items()}
    assert seen["beta 0.1"] == (0.1, 2, 0.0)
    assert seen["beta 0.4 with noise"] == (0.4, 2, 0.04)
    assert seen["holomorphic"] == (0.4, 10, 0.0)
    assert seen["holomorphic with noise"] == (0.4, 10, 0.04)
    claims = {claim.what: claim.value for claim in _ep_noise.REPRODUCTION.claims}
    np.testing.assert_allclose(claims["beta 0.4 test error"], 2.353, atol=1e-3)
    assert set(claims) == {f"{name} test error" for name in rules}


def test_the_noisy_net_comes_to_rest_in_discrete_time(key):
    rule = _ep_noise.experiment("beta 0.1").rule
    learner = rule.init(_ep_noise.net(key=key), key=key)
    assert eqx.filter_jit(learner.model.settle)(jax.random.uniform(key, (2, 784))).residual.max() < 1e-4


def test_nets_are_read_in_the_time_that_their_names_say():
    kinds = {name: _gdu.build(name, 0) for name in _gdu.NETS}
    assert {name: type(net) for name, net in kinds.items()} == {
        "P-1h": Convergent,
        "P-2h": Convergent,
        "EB-1h": Hopfield,
    }
    assert [site.weight.shape for site in affines(kinds["P-2h"].chain)] == [(784, 512), (512, 512), (512, 10)]


def test_every_pair_of_units_is_coupled_once(x64, key):
    weight, bias = jax.random.normal(key, (8, 8)), jnp.arange(8.0)
    net = _ep_theorem.AllToAll(weight, bias)
    s = np.asarray(jax.random.normal(jax.random.key(1), (3, 8)))
    r, w = np.tanh(s), np.asarray(weight)
    coupling = sum(w[i, j] * r[:, i] * r[:, j] for i in range(8) for j in range(i + 1, 8))
    expected = 0.5 * (s**2).sum(1) - coupling - r @ np.arange(8.0)
    np.testing.assert_allclose(net.energy(jnp.asarray(s[:, 2:]), jnp.asarray(s[:, :2])), expected, rtol=1e-12)
    assert net.start(jnp.ones((3, 2))).shape == (3, 6)
    np.testing.assert_array_equal(net.output(jnp.asarray(s)), s[:, -2:])


def test_the_theorem_holds_for_one_pair_and_its_errors_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(_ep_theorem, "PAIRS", {"traded": _ep_theorem.PAIRS["traded"]})
    monkeypatch.setattr(_ep_theorem, "POINTS", (2, 4))
    result = outcome(_ep_theorem.REPRODUCTION, Options(tmp_path))
    missed = [claim["what"] for claim in result["claims"] if not claim["reproduced"]]
    assert (len(result["claims"]), missed) == (8, [])
    assert (tmp_path / "error.png").stat().st_size > 10_000
    details = result["details"]
    few, many = (details["holomorphic_errors"][points] for points in ("2", "4"))
    assert few[0] > 10 * many[0]
    assert len(few) == len(details["radii"])
