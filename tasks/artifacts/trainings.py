"""Reads what TrainModel left: the trained model and the scores of messages it was not trained on."""

from __future__ import annotations
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from luigi.util import requires
from models.settings import NetworkSettings, TrainingSettings
from tasks.artifacts.locations import VOCABULARY
from tasks.build_vocabulary import BuildVocabulary
from tasks.clean_text import CleanText
from tasks.scheduler.scheduler_messages import Instruction
from tasks.artifacts.links import link_to, tensorboard_link
from tasks.scheduler.progress import ProgressReport, left, reporting
from tasks.settings.loading import load
from tasks.stage import FolderStage, prepare_tensorflow
from tasks.artifacts.folders import checked_file
if TYPE_CHECKING:
    import pandas as pd

    from models.training.epoch_limit import EpochLimit
    from models.training.trained_model import TrainedModel
    from models.training.loop import LabelledMessages, Progress, Trained


def trained_model(training: Path) -> TrainedModel:
    """The trained model of a folder, what describes it and its vocabulary held to the folder's manifest.

    Raises:
        ArtifactError: a part is missing, was changed, or does not belong to the others.
    """
    from models.training.trained_model import DESCRIPTION, load_trained

    # Checkpoints are held to the description instead: a damaged one is passed over for the one before.
    for name in (DESCRIPTION, VOCABULARY):
        checked_file(training, name)
    return load_trained(training)


def unseen_scores(training: Path) -> pd.DataFrame:
    """What is said in a folder of messages that were not trained on, as `models.training.trained_model.describe_trained` wrote it.

    Raises:
        ArtifactError: it is missing or was changed.
    """
    import pandas as pd

    from models.statistics.calibration import UNSEEN_SCORES

    return pd.read_parquet(checked_file(training, UNSEEN_SCORES))
