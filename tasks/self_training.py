"""The stages of a self-trained model: TrainSelfTrained trains it, EvaluateSelfTrained compares it with its teacher too.

If SelectNightMessages finds no message, as in the first nights, the self-trained model is its teacher: both stages then
have the results of TrainModel and EvaluateModel, and do nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from tasks.build_vocabulary import BuildVocabulary
from tasks.clean_text import CleanText
from tasks.evaluate_model import EvaluateModel
from tasks.select_night_messages import SELECTED, SelectNightMessages, read_labelled_messages
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import load
from tasks.stage import FolderStage
from tasks.train_model import TrainModel

if TYPE_CHECKING:
    import pandas as pd

    from models.training.job import WeakMessages

log = logging.getLogger("spamscore")
_FACTS = ("messages", "spam", "ham", "teacher", "window", "batches", "left_out", "thresholds", "weight", "steps")


def is_self_training() -> bool:
    """Returns whether [corpus] self_training = nights is set."""
    return load(CorpusSettings).self_training == "nights"


class TrainSelfTrained(TrainModel):
    """Trains the model again, with the messages of SelectNightMessages for its linear part.

    Recurrent part, vocabulary and seeds are those of TrainModel, and calibration and threshold are again fitted to
    labelled messages alone. The training runs on this machine, also if TrainModel runs on several.
    """

    def requires(self) -> list[luigi.Task]:
        """Returns the labelled messages, the vocabulary and the messages of the nights."""
        return [CleanText(), BuildVocabulary(), SelectNightMessages()]

    def fingerprint(self) -> str:
        """Returns the name of the result: that of the teacher if there are no messages of the nights."""
        return str(TrainModel().fingerprint() if SelectNightMessages().finds_nothing() else super().fingerprint())

    def run(self) -> None:
        """Trains, unless there are no messages of the nights."""
        if SelectNightMessages().finds_nothing():
            log.info(
                "self-training: no messages of past nights yet, so the model is trained on labelled messages alone"
            )
            return
        FolderStage.run(self)

    def read_weaker_messages(self) -> WeakMessages:
        """Reads the messages that the teacher labelled."""
        import numpy as np
        import pandas as pd

        from models.training.job import WeakMessages

        nights = SelectNightMessages().output()
        messages = pd.read_parquet(nights.file(SELECTED), columns=["text", "spam"])
        return WeakMessages(
            messages["text"].tolist(), messages["spam"].to_numpy(np.int32), float(nights.manifest()["weight"])
        )

    def describe_weaker_messages(self) -> dict[str, Any]:
        """Returns the facts on these messages: teacher, batches, thresholds, weight and counts."""
        manifest = SelectNightMessages().output().manifest()
        return {"selection": SelectNightMessages().fingerprint(), **{name: manifest[name] for name in _FACTS}}


class EvaluateSelfTrained(EvaluateModel):
    """Evaluates the self-trained model on labelled messages, against the version in service and against its teacher.

    It is refused if it is worse than one of the two. Labels that people gave to messages of the nights count too.
    """

    def requires(self) -> list[luigi.Task]:
        """Returns the test part, the self-trained model, and the evaluation of its teacher."""
        return [CleanText(), TrainSelfTrained(), EvaluateModel()]

    def fingerprint(self) -> str:
        """Returns the name of the result: that of the teacher if there are no messages of the nights."""
        return str(EvaluateModel().fingerprint() if SelectNightMessages().finds_nothing() else super().fingerprint())

    def run(self) -> None:
        """Evaluates the model, unless it is the teacher."""
        if not SelectNightMessages().finds_nothing():
            super().run()

    def read_test_part(self) -> pd.DataFrame:
        """Reads the test part, and adds the messages that people labelled and on which no model was trained."""
        test = super().read_test_part()
        if load(CorpusSettings).feedback == "join":
            return test  # they are labelled messages of the corpus, and some of them are in its test part
        corpus = read_labelled_messages(self.input()[0])
        judged = append_labelled(test, SelectNightMessages().labelled_by_people, corpus)
        log.info(
            "self-training: people's labels of past nights that the model is judged on: %d", len(judged) - len(test)
        )
        return judged

    def teacher(self) -> Path:
        """Returns the folder of the teacher's training."""
        return Path(TrainModel().output().path)


def append_labelled(test: pd.DataFrame, labels: Sequence[tuple[str, str]], corpus: pd.DataFrame) -> pd.DataFrame:
    """Appends messages that people labelled to the test part, numbered from the highest number of the corpus on.

    Args:
        test: row_number int64, text, spam.
        labels: people's labels: (label, text).
        corpus: row_number and text of the whole corpus. A copy of one of its texts may have been trained on, and is
            left out. So is a text that has both labels.
    """
    import pandas as pd

    from models.training.self_training.near_copies import collect_keys, find_copies

    labelled = pd.DataFrame(labels, columns=["label", "text"]).drop_duplicates("text", keep=False)
    labelled = labelled[~find_copies(labelled["text"].tolist(), collect_keys(corpus["text"].dropna()))]
    first = int(corpus["row_number"].max()) + 1
    rows = {
        "row_number": range(first, first + len(labelled)), "text": labelled["text"], "spam": labelled["label"] == "spam"
    }  # fmt: skip
    return pd.concat([test, pd.DataFrame(rows).astype(test.dtypes.to_dict())], ignore_index=True)
