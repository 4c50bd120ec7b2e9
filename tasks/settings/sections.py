"""Maps every section of luigi.cfg to the dataclass that declares it, in the order of the file."""

from __future__ import annotations

from models.settings import (
    DeviceSettings,
    GateSettings,
    NetworkSettings,
    SplitSettings,
    TextSettings,
    TrainingSettings,
    VocabularySettings,
)
from tasks.settings.inputs import CorpusSettings, MessagesSettings
from tasks.settings.operation import AlertSettings, ConsoleSettings, MetricsSettings, RunSettings
from tasks.settings.scoring import DriftSettings, ReportSettings, ScoringSettings
from tasks.settings.serving import ApiSettings, ServingSettings
from tasks.settings.spark import SparkSettings
from tasks.settings.storage import ArtifactSettings, DatabaseSettings

SECTIONS: dict[str, type] = {
    "artifacts": ArtifactSettings,
    "database": DatabaseSettings,
    "corpus": CorpusSettings,
    "text": TextSettings,
    "split": SplitSettings,
    "vocabulary": VocabularySettings,
    "network": NetworkSettings,
    "training": TrainingSettings,
    "gate": GateSettings,
    "messages": MessagesSettings,
    "scoring": ScoringSettings,
    "spark": SparkSettings,
    "serving": ServingSettings,
    "api": ApiSettings,
    "devices": DeviceSettings,
    "report": ReportSettings,
    "drift": DriftSettings,
    "run": RunSettings,
    "alerts": AlertSettings,
    "metrics": MetricsSettings,
    "console": ConsoleSettings,
}
