"""The five regimes of train.lua paramsForEpoch."""

import pytest

from xnornet_port.schedule import regime_of

# epoch: learning rate, weight decay, at both ends of each regime
TABLE = [
    (1, 1e-2, 5e-4),
    (18, 1e-2, 5e-4),
    (19, 5e-3, 5e-4),
    (29, 5e-3, 5e-4),
    (30, 1e-3, 0),
    (43, 1e-3, 0),
    (44, 5e-4, 0),
    (52, 5e-4, 0),
    (53, 1e-4, 0),
    (55, 1e-4, 0),
    (1000, 1e-4, 0),
]


@pytest.mark.parametrize(("epoch", "rate", "decay"), TABLE)
def test_regime(epoch: int, rate: float, decay: float) -> None:
    regime = regime_of(epoch)
    assert (regime.learning_rate, regime.weight_decay) == (rate, decay)
