"""The entry points: the tasks for `luigi --module pipeline …`, the command line `spamscore`, the bundled sample."""

from tasks.scheduler.luigi_script import import_luigi, is_luigi_command

import_luigi()

import pipeline.ranges  # noqa: F401 - registers its tasks
from pipeline.nightly import Nightly
from tasks.build_vocabulary import BuildVocabulary
from tasks.clean_text import CleanText
from tasks.evaluate_model import EvaluateModel
from tasks.export_model import ExportModel
from tasks.extract_messages import ExtractMessages
from tasks.ingest_corpus import IngestCorpus
from tasks.report_batch import ReportBatch
from tasks.scheduler import arguments, calendar, failures, termination
from tasks.scheduler.luigi_defaults import prepare_luigi
from tasks.score_batch import ScoreBatch
from tasks.select_night_messages import SelectNightMessages
from tasks.self_training import EvaluateSelfTrained, TrainSelfTrained
from tasks.train_model import TrainModel

__all__ = [
    "BuildVocabulary",
    "CleanText",
    "EvaluateModel",
    "EvaluateSelfTrained",
    "ExportModel",
    "ExtractMessages",
    "IngestCorpus",
    "Nightly",
    "ReportBatch",
    "ScoreBatch",
    "SelectNightMessages",
    "TrainModel",
    "TrainSelfTrained",
]

prepare_luigi()
if is_luigi_command():
    calendar.start_run()
    failures.install()
    arguments.install()
    termination.install()
