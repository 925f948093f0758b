"""Every figure the anomaly module can be tuned with, in one struct with its reason."""

from __future__ import annotations

import msgspec


class DetectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How sure to be before saying so. Scores are standard deviations of the link's own natural noise."""

    window_s: float = 10.0  # length of a window; must be the pipeline's
    fire_score: float = (
        6.0  # a window is suspicious from here; 42 links × 2,000 windows of Gaussian noise give none
    )
    clear_score: float = 3.5  # … and clean below here; between the two an open alert stays as it is
    min_excess_s: float = (
        2e-4  # smaller rises are nobody's trouble: a quarter of one 8-kbit packet at 10 Mbit/s
    )
    min_excess_ratio: float = (
        0.1  # … and so are rises under this share of the delay predicted for the link's hop
    )
    min_load_share: float = 0.08  # load the flows do not show, as a share of capacity
    fire_after: int = 2  # consecutive suspicious windows
    clear_after: int = 2  # consecutive clean windows
    reemit_windows: int = 6  # a firing alert is told again at least this often
    settle_windows: int = 2  # windows after a change of topology in which nothing is comparable
    young_windows: int = 5  # windows in which a new calibration learns fast: nothing is comparable either
    memory_windows: int = 40  # time constant of the learnt baselines
    first_bias_width: float = 0.35  # standard deviation of a model's log bias on a path never seen
    reorder_windows: int = 1  # complete windows that wait for an incomplete older one
    patience_windows: int = 3  # after so many windows a missing prediction is not waited for
    forget_windows: int = 360  # after so long a link that is gone is taken to have been removed
    max_suspects: int = 6
    max_paths: int = 16
