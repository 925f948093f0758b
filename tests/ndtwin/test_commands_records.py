"""What `ndtwin replay` tells its reader at the end."""

from __future__ import annotations

import pytest

from ndtwin.commands.records import verdict
from stream.replay import ReplayReport
from stream.replay_compare import Comparison


def report(model: str = "mg1k 1", **compared: Comparison) -> ReplayReport:
    """A replay by M/G/1/K beside a live run by ``model``."""
    return ReplayReport(0, 10, 0, compared=compared, model="mg1k 1", live_models=[model])


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (Comparison(), "none"),
        (Comparison(identical=6), "6 the same to the byte"),
        (Comparison(6, 1, 2, 3, 4), "6 the same to the byte, 1 of equal figures, 2 of other figures, "
                                    "3 only live, 4 only in the replay"),
    ],
)  # fmt: skip
def test_a_comparison_is_told_in_words(comparison: Comparison, words: str) -> None:
    """Only what there is, nothing as a Python expression."""
    assert str(comparison) == words


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (report(states=Comparison(identical=3), alerts=Comparison()), "the same as live"),
        (report(states=Comparison()), "nothing to compare with: the archive holds no live states"),
        (report(states=Comparison(identical=3), alerts=Comparison(only_live=1)), "not the same as live"),
        (
            report("routenet 2", states=Comparison(identical=3), predictions=Comparison(different=3)),
            "not the same as live, which was predicted by routenet 2; here mg1k 1",
        ),
    ],
)
def test_the_last_line_says_which_of_three_it_was(told: ReplayReport, line: str) -> None:
    """The same, not the same (by another model, where that is why), or nothing to compare with."""
    assert verdict(told).startswith(line)
    assert "not" not in line or not told.same_as_live
