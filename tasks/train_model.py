"""TrainModel: the recurrent network, trained with checkpoints; killed and started again it goes on from the latest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi.util import requires

from models.settings import NetworkSettings, TrainingSettings
from tasks.build_vocabulary import VOCABULARY, BuildVocabulary
from tasks.clean_text import CleanText
from tasks.progress import ProgressReport, reporting
from tasks.settings import load
from tasks.stage import FolderStage, prepare_tensorflow
from tasks.targets import checked_file

if TYPE_CHECKING:
    import pandas as pd

    from models.trained import TrainedModel
    from models.training import LabelledMessages, Progress


@requires(CleanText, BuildVocabulary)
class TrainModel(FolderStage):
    """Trains the network on the training part; stops early by the validation part; calibrates by unseen messages."""

    folder = "training"
    sections = (NetworkSettings, TrainingSettings)
    code_version = 3
    resumes = True

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the parts, trains, calibrates, and describes the result beside its checkpoints."""
        prepare_tensorflow()
        from models.trained import describe_trained, unseen_scores
        from models.training import held_out_logits, train
        from models.vocabulary import load_vocabulary

        messages, vocabulary_folder = self.input()
        vocabulary = load_vocabulary(vocabulary_folder.file(VOCABULARY))
        training = labelled_part(messages.file("training.parquet"))
        validation = labelled_part(messages.file("validation.parquet"))
        network, settings = load(NetworkSettings), load(TrainingSettings)
        with reporting(self, "training") as report:

            def watch(progress: Progress) -> None:
                show(report, progress, settings.held_out_folds)

            held_out = None
            if settings.held_out_folds:
                held_out = held_out_logits(training, vocabulary, network, settings, folder, watch), training
            trained = train(training, validation, vocabulary, network, settings, folder, watch)
        unseen = unseen_scores(trained, vocabulary, network, validation, held_out)
        return describe_trained(trained, vocabulary, network, unseen, folder)


def trained_model(training: Path) -> TrainedModel:
    """The trained model of a folder, what describes it and its vocabulary held to the folder's manifest.

    Raises:
        ArtifactError: a part is missing, was changed, or does not belong to the others.
    """
    from models.trained import DESCRIPTION, load_trained

    # Checkpoints are held to the description instead: a damaged one is passed over for the one before.
    for name in (DESCRIPTION, VOCABULARY):
        checked_file(training, name)
    return load_trained(training)


def unseen_scores(training: Path) -> pd.DataFrame:
    """What is said in a folder of messages that were not trained on, as `models.trained.describe_trained` wrote it.

    Raises:
        ArtifactError: it is missing or was changed.
    """
    import pandas as pd

    from models.calibration import UNSEEN_SCORES

    return pd.read_parquet(checked_file(training, UNSEEN_SCORES))


def labelled_part(path: Path) -> LabelledMessages:
    """Reads a part that CleanText wrote."""
    import numpy as np
    import pandas as pd

    from models.training import LabelledMessages

    part = pd.read_parquet(path, columns=["text", "spam"])
    return LabelledMessages(part["text"].tolist(), part["spam"].to_numpy(np.int32))


def show(report: ProgressReport, progress: Progress, folds: int) -> None:
    """Says where training is; the time left is to the last epoch, early stopping not foreseen.

    The folds come first, each with a share of the messages, so of the steps.
    """
    done = (progress.epoch - 1) * progress.steps + progress.step
    total = progress.epochs * progress.steps
    left = (total - done) * progress.seconds_a_step
    part = f"held-out part {progress.fold}/{folds}, " if progress.fold else ""
    report.update(
        done,
        total,
        f"{part}epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}, "
        f"{left / 60:.1f} min left of it at most",
    )
