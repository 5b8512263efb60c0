"""The signature of spike-timing-dependent plasticity: a small run of the whole."""

from anyprop.reproductions import Options
from anyprop.reproductions import _stdp_signature as signature


def test_a_small_run(tmp_path, monkeypatch):
    monkeypatch.setattr(signature, "PAIRS", 200_000)
    measured, details = signature.run(Options(tmp_path, epochs=1, seeds=2))
    for claim in signature.REPRODUCTION.claims:
        assert len(measured[claim.what]) == 2
        if claim.tolerance < 0.1:
            assert abs(sum(measured[claim.what]) / 2 - claim.value) <= claim.tolerance
    assert (tmp_path / "signature.png").stat().st_size > 10_000
    assert len(details["curves"]["interval"]) == len(details["curves"]["change"][0]) == 20
