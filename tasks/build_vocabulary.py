"""The stage BuildVocabulary: counts the tokens of the training part and writes the vocabulary."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from luigi.util import requires

from models.settings import TextSettings, VocabularySettings
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import VOCABULARY
from tasks.clean_text import CleanText
from tasks.scheduler.progress import report_progress
from tasks.settings.loading import load
from tasks.stage import FolderStage, prepare_tensorflow

log = logging.getLogger("spamscore")


@requires(CleanText)
class BuildVocabulary(FolderStage):
    """Counts the tokens of the training part and numbers the frequent ones."""

    folder = "vocabulary"
    code_version = 2
    uses_tensorflow = True
    sections = (VocabularySettings,)

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the cleaned training messages, counts their tokens, and writes the vocabulary."""
        prepare_tensorflow()
        import pandas as pd

        from models.text.vocabulary import build_vocabulary, save_vocabulary, write_vocabulary_copies

        training = pd.read_parquet(self.input().file("training.parquet"), columns=["cleaned"])
        with report_progress(self, "vocabulary", interruptible=True) as progress:
            progress.link(link_to(self.output().path / VOCABULARY))
            progress.update(0, 1, f"counting the tokens of {len(training):,} messages")
            vocabulary = build_vocabulary(training["cleaned"], load(VocabularySettings), load(TextSettings))
            save_vocabulary(vocabulary, folder / VOCABULARY)
            write_vocabulary_copies(vocabulary, folder)
            progress.conclude(f"{len(vocabulary):,} tokens of {len(training):,} messages")
        log.info("vocabulary: %d tokens", len(vocabulary))
        return {"tokens": len(vocabulary), "sha256": vocabulary.sha256()}
