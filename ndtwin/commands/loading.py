"""The models that a command is about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndtwin.commands.common import say
from twin.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from twin.evaluation import Predict
    from twin.models import DelayModel

ALL_MODELS = ("routenet", "mg1k", "mm1b", "rnn")
ModelOption = Annotated[
    list[str] | None, typer.Option(help="May be given several times.", show_default="all")
]
CheckpointOption = Annotated[Path | None, typer.Option(help="Default: the shipped weights.")]


def load_models(names: list[str], checkpoint: Path | None) -> tuple[dict[str, DelayModel], dict[str, str]]:
    """The models asked for, or all; what cannot be loaded is told, and an error where it was asked for.

    A checkpoint is that of one model; the others are the shipped ones.
    """
    from stream.predictor import MODELS

    models: dict[str, DelayModel] = {}
    skipped = {}
    own = _model_of(checkpoint, names or ALL_MODELS)
    for name in names or ALL_MODELS:
        try:
            if name not in MODELS:
                raise UsageError(f"no model {name!r}: choose from {', '.join(MODELS)}")
            models[name] = MODELS[name](checkpoint if name == own else None)
        except (UsageError, CheckpointError) as error:
            if names:
                raise
            skipped[name] = str(error)
            say(f"skipped {name}: {error}")
    return models, skipped


def _model_of(checkpoint: Path | None, names: list[str] | tuple[str, ...]) -> str:
    """Whose weights the file holds; empty without a file."""
    if checkpoint is None:
        return ""
    from twin.checkpoint import read_checkpoint

    own = read_checkpoint(checkpoint).config.name
    if own not in names:
        raise UsageError(f"{checkpoint} holds the model {own!r}: ask for it by --model {own}")
    return own


def predictors(models: Mapping[str, DelayModel]) -> dict[str, Predict]:
    """Models as a judge calls them."""
    return {name: _predictor(model) for name, model in models.items()}


def _predictor(model: DelayModel) -> Predict:
    return lambda sample: model.predict(sample.network, sample.traffic)
