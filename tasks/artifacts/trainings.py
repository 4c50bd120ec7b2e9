"""Reads what TrainModel left: the trained model and the scores of messages it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.artifacts.folders import checked_file
from tasks.artifacts.locations import VOCABULARY

if TYPE_CHECKING:
    import pandas as pd

    from models.training.trained_model import TrainedModel


def trained_model(training: Path) -> TrainedModel:
    """The trained model of a folder, what describes it and its vocabulary held to the folder's manifest.

    Raises:
        ArtifactError: a part is missing, was changed, or does not belong to the others.
    """
    from models.training.trained_model import DESCRIPTION, load_trained_model

    # Checkpoints are held to the description instead: a damaged one is passed over for the one before.
    for name in (DESCRIPTION, VOCABULARY):
        checked_file(training, name)
    return load_trained_model(training)


def unseen_scores(training: Path) -> pd.DataFrame:
    """Reads the scores of the messages that a training did not learn from.

    `models.training.trained_model.write_trained_model` describes the columns.

    Raises:
        ArtifactError: it is missing or was changed.
    """
    import pandas as pd

    from models.statistics.calibration import UNSEEN_SCORES

    return pd.read_parquet(checked_file(training, UNSEEN_SCORES))
