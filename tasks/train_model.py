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
    from models.vocabulary import Vocabulary


@requires(CleanText, BuildVocabulary)
class TrainModel(FolderStage):
    """Trains the network on the training part; stops early and calibrates by the validation part."""

    folder = "training"
    sections = (NetworkSettings, TrainingSettings)
    code_version = 2
    resumes = True

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads and encodes the parts, trains, calibrates, and describes the result beside its checkpoints."""
        prepare_tensorflow()
        from models.trained import describe_trained
        from models.training import train
        from models.vocabulary import load_vocabulary

        messages, vocabulary_folder = self.input()
        vocabulary = load_vocabulary(vocabulary_folder.file(VOCABULARY))
        training = encoded_part(messages.file("training.parquet"), vocabulary)
        validation = encoded_part(messages.file("validation.parquet"), vocabulary)
        network, settings = load(NetworkSettings), load(TrainingSettings)
        with reporting(self, "training") as report:
            trained = train(
                training,
                validation,
                len(vocabulary),
                network,
                settings,
                folder,
                lambda progress: show(report, progress),
            )
        return describe_trained(trained, vocabulary, network, validation, folder)


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


def validation_scores(training: Path) -> pd.DataFrame:
    """What the model of a folder says of the validation part, as `models.trained.describe_trained` wrote it.

    Raises:
        ArtifactError: it is missing or was changed.
    """
    import pandas as pd

    from models.calibration import VALIDATION_SCORES

    return pd.read_parquet(checked_file(training, VALIDATION_SCORES))


def encoded_part(path: Path, vocabulary: Vocabulary) -> LabelledMessages:
    """Reads a part that CleanText wrote and turns its messages into token ids."""
    import numpy as np
    import pandas as pd

    from models.encoder import TextEncoder, encode_messages
    from models.training import LabelledMessages

    part = pd.read_parquet(path, columns=["text", "spam"])
    return LabelledMessages(
        encode_messages(TextEncoder(vocabulary), part["text"].tolist()), part["spam"].to_numpy(np.int32)
    )


def show(report: ProgressReport, progress: Progress) -> None:
    """Says where training is; the time left is to the last epoch, early stopping not foreseen."""
    done = (progress.epoch - 1) * progress.steps + progress.step
    total = progress.epochs * progress.steps
    left = (total - done) * progress.seconds_a_step
    report.update(
        done,
        total,
        f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}, {left / 60:.1f} min left at most",
    )
