"""Reproductions: a paper's experiment, its settings and its number, as one command.

`anyprop reproduce list` shows them; `anyprop reproduce run NAME --out FOLDER` runs one, resumes it where it
was stopped, and writes `FOLDER/result.json`. The results in this repository lie in `results/`.
"""

from . import (
    _am_binary,
    _am_cifar,
    _am_higgs,
    _am_lenet5,
    _am_mnist,
    _am_rnn15,
    _am_theory,
    _boltzmann_mixing,
    _chl_limit,
    _dfa_deep,
    _dtp_cifar,
    _dtp_deep_mnist,
    _dtp_discrete,
    _dtp_stochastic,
    _ep_cifar,
    _ep_conv,
    _ep_convergent,
    _ep_convergent_2h,
    _ep_convergent_3h,
    _ep_devices,
    _ep_mnist,
    _ep_mnist_2x500,
    _ep_mnist_3x500,
    _ep_noise,
    _ep_resistive,
    _ep_resistive_1024,
    _ep_stochastic,
    _ep_theorem,
    _ep_vector_field,
    _feedback_mnist,
    _gdu,
    _initialized_ep,
    _iterative_target_propagation,
    _lenet5_feedback,
    _neur503,
    _pc_mnist,
    _rbm_mnist,
    _stdp_signature,
)
from ._reproduction import Claim, Options, Reproduction, outcome

REPRODUCTIONS: dict[str, Reproduction] = {
    module.REPRODUCTION.name: module.REPRODUCTION
    for module in (
        _neur503,
        _feedback_mnist,
        _dfa_deep,
        _lenet5_feedback,
        _dtp_deep_mnist,
        _dtp_discrete,
        _dtp_stochastic,
        _dtp_cifar,
        _iterative_target_propagation,
        _am_mnist,
        _am_cifar,
        _am_lenet5,
        _am_rnn15,
        _am_higgs,
        _am_binary,
        _am_theory,
        _ep_mnist,
        _ep_mnist_2x500,
        _ep_mnist_3x500,
        _ep_convergent,
        _ep_convergent_2h,
        _ep_convergent_3h,
        _ep_conv,
        _ep_cifar,
        _chl_limit,
        _stdp_signature,
        _ep_stochastic,
        _pc_mnist,
        _initialized_ep,
        _ep_resistive,
        _ep_resistive_1024,
        _ep_devices,
        _boltzmann_mixing,
        _rbm_mnist,
        _ep_theorem,
        _gdu,
        _ep_noise,
        _ep_vector_field,
    )
}
"""Every reproduction, by its name on the command line."""

__all__ = ["REPRODUCTIONS", "Claim", "Options", "Reproduction", "outcome"]
