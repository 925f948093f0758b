"""Answers "what if" on a thread of its own, with its own model: no question ever delays a page or a stream.

The model is the shipped RouteNet; where its weights are missing or do not fit, the queueing model answers and
the notes say so. It is loaded at the first question, because most servers are never asked one and torch costs
300 MB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from ndtwin.api import schema as s
from ndtwin.api.frames import Frame
from ndtwin.api.views import figure
from stream.client import logger
from twin.errors import CheckpointError
from twin.models import DelayModel
from twin.network import Floats
from twin.queueing import MG1K
from twin.whatif import WhatIfResult, what_if

WORST = 10
_LOG = logger("serve")


def shipped_model() -> DelayModel:
    """The shipped RouteNet, else the queueing model."""
    from twin import inference  # only for those who ask

    try:
        return inference.load()
    except (CheckpointError, OSError) as error:
        _LOG.warning("what-if answers by the queueing model", reason=str(error))
        return MG1K()


class WhatIfDesk:
    """One model, one thread, questions in order."""

    def __init__(self, load_model: Callable[[], DelayModel] = shipped_model) -> None:
        self._load_model = load_model
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ndtwin-whatif")

    async def ask(self, frame: Frame, question: s.WhatIfIn) -> s.WhatIfOut:
        """Answer about the network of a frame; UsageError when the question names what is not there."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, frame, question)

    def close(self) -> None:
        """Answer what was asked, then stop."""
        self._pool.shutdown()

    @cached_property
    def _model(self) -> DelayModel:
        return self._load_model()

    def _answer(self, frame: Frame, question: s.WhatIfIn) -> s.WhatIfOut:
        result = what_if(
            frame.network,
            frame.traffic,
            self._model,
            links_down=question.links_down,
            weights=question.weights,
            capacities=question.capacities,
            traffic_scale=question.traffic_scale,
        )
        return whatif_out(frame, self._model, result)


def whatif_out(frame: Frame, model: DelayModel, result: WhatIfResult) -> s.WhatIfOut:
    """The answer as the API gives it."""
    change = _change(result.before.mean_s, result.after.mean_s)
    weight = np.where(
        (result.before.mean_s > 0) & (result.after.mean_s > 0), np.maximum(frame.traffic.bps, 1e-9), 0.0
    )
    return s.WhatIfOut(
        network=frame.name,
        version=frame.version,
        model=model.name,
        model_version=model.version,
        out_of_range=list(result.after.out_of_range),
        notes=list(result.notes),
        mean_before_s=_mean(result.before.mean_s, weight),
        mean_after_s=_mean(result.after.mean_s, weight),
        rerouted=list(result.rerouted),
        unreachable=list(result.unreachable),
        worst=[
            _path_out(frame, result, change, int(p))
            for p in np.argsort(-result.delta_s, kind="stable")[:WORST]
        ],
        worst_link_before=s.WorstLinkOut(
            link=result.worst_link_before.name, utilisation=result.worst_link_before.utilisation
        ),
        worst_link_after=s.WorstLinkOut(
            link=result.worst_link_after.name, utilisation=result.worst_link_after.utilisation
        ),
        links=[
            s.WhatIfLinkOut(link=name, utilisation_before=before, utilisation_after=after)
            for name, before, after in zip(
                frame.network.link_names,
                result.before.link_utilisation.tolist(),
                result.after.link_utilisation.tolist(),
                strict=True,
            )
        ],
        paths=[_path_out(frame, result, change, p) for p in range(frame.network.path_count)],
    )


def _path_out(frame: Frame, result: WhatIfResult, change: Floats, path: int) -> s.WhatIfPathOut:
    return s.WhatIfPathOut(
        path=frame.network.path_name(path),
        before_s=figure(result.before.mean_s, path),
        after_s=figure(result.after.mean_s, path),
        change=float(change[path]) if np.isfinite(change[path]) else None,
    )


def _change(before: Floats, after: Floats) -> Floats:
    out = np.full(len(before), np.nan)
    both = (before > 0) & (after > 0)
    out[both] = after[both] / before[both] - 1
    return out


def _mean(values: Floats, weight: Floats) -> float:
    return float(np.average(values, weights=weight)) if weight.sum() > 0 else 0.0
