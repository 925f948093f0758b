"""Are the corrections better than the model alone? Told by every window before it is learnt from.

The error of a window is the mean |expected ÷ measured − 1| over its measurements, each at most 1. Those of
the model and of the corrected figures are averaged over about the last :data:`MEMORY` windows. Corrections
are used once they are no worse than the model, and no longer once they are worse by a tenth: in a network
whose error does not persist (bursts of other flows in every window, say) there is nothing to learn, and a
calibration must not be worse than none for long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MEMORY = 20  # windows
ENOUGH, TOO_MUCH = 1.0, 1.1  # corrected error ÷ the model's: used from here, and up to here


@dataclass(frozen=True)
class Worth:
    """Rounded to what is stored, as all of a calibration is."""

    windows: int = 0  # that were compared
    model: float = 0.0  # mean error
    corrected: float = 0.0
    used: bool = False

    def after(self, model: float, corrected: float) -> Worth:
        """With one more window's errors."""
        windows = self.windows + 1
        gain = max(1.0 / windows, 1.0 / MEMORY)
        by_model = float(np.float32(self.model + gain * (model - self.model)))
        by_corrections = float(np.float32(self.corrected + gain * (corrected - self.corrected)))
        most = TOO_MUCH if self.used else ENOUGH
        return Worth(min(windows, MEMORY), by_model, by_corrections, by_corrections <= most * by_model)
