"""How a reconstruction is done; what the same settings and seed give is the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stemcodecs.errors import ConfigurationError

__all__ = ["DescentSettings"]


@dataclass(frozen=True, kw_only=True)
class DescentSettings:
    """Options of the descent.

    Parameters
    ----------
    epochs : int
        Passes over all angles.
    step : float
        Step of Adam (Kingma and Ba 2015, arXiv:1412.6980) in units of each element's own density, see `survey`.
    decay : float
        Factor on the step after each epoch.
    transmission_weight : float
        Weight b of the squared error of the logarithm of the transmission.
    total_variation : float
        Weight of the total variation within each section (Rudin et al. 1992, doi:10.1016/0167-2789(92)90242-F),
        smoothed at zero; 0 for none. 0.01 to 0.1 flatten the noise of weak maps.
    stop_at_noise : bool
        Leave a row as it is when its counts are fitted as well as counting noise allows, before the noise is fitted.
    self_absorption : bool
        False takes all fluorescence to get out; to see what that does.
    seed : int
        Chooses the order of the angles.
    """

    epochs: int = 20
    step: float = 0.2
    decay: float = 0.9
    transmission_weight: float = 10.0
    total_variation: float = 0.0
    stop_at_noise: bool = False
    self_absorption: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.seed < 0:
            raise ConfigurationError(f"{self.epochs} epochs and seed {self.seed} cannot be; give at least 1 and 0")
        if not (0 < self.step < math.inf and 0 < self.decay <= 1):
            raise ConfigurationError(
                f"step {self.step} must be positive and decay {self.decay} above 0 and at most 1; mend them"
            )
        for name in ("transmission_weight", "total_variation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"{name} {getattr(self, name)} cannot be; give a number that is not negative")
