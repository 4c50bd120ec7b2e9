"""The metrics for Prometheus, in the text files and at the Pushgateway."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from receivers import web_server

from tasks.database.batches import BatchRow
from tasks.monitoring.alerts import FAILURE, Alerts
from tasks.monitoring.drift import Crossing, Drift, DriftFigures
from tasks.monitoring.prometheus import BATCH, RUN, batch_metrics, export_metrics, run_metrics

DATE = datetime.date(2026, 1, 31)
PUBLISHED = datetime.datetime(2026, 2, 1, 2, 30, tzinfo=datetime.UTC)


def batch(**values: Any) -> BatchRow:
    row: dict[str, Any] = dict.fromkeys(BatchRow.__dataclass_fields__)
    row |= {"batch_date": DATE, "threshold": 0.8, "model_version": 3, "published_at": PUBLISHED}
    return BatchRow(**row | values)


def read(text: str) -> dict[str, float]:
    """Returns the value of each sample by its name and label values."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def written(name: str) -> dict[str, float]:
    return read((Path("metrics") / name).read_text(encoding="utf-8"))


@pytest.fixture
def metrics_folder(set_settings: Callable[..., None]) -> Path:
    set_settings("metrics", textfile_folder="metrics")
    Path("metrics").mkdir()
    return Path("metrics")


def drift(accepted: bool) -> Drift:
    figures = DriftFigures(1, DATE, 1000, 990, 99, 0.02, 0.3, 0.01, 0.1, 0.01)
    crossings = [Crossing("psi_validation", 0.3, 0.25, "too far")]
    return Drift(figures, [1], crossings, PUBLISHED, PUBLISHED if accepted else None, "ann" if accepted else None)


def test_all_metrics_of_a_batch_are_exported(metrics_folder: Path) -> None:
    row = batch(
        messages_read=1000, scored=990, rejected=10, flagged=99, seconds_total=20.0, seconds_text=5.0,
        seconds_network=12.0,
    )  # fmt: skip
    export_metrics(BATCH, batch_metrics(row, drift(accepted=False)))
    assert written("spamscore_batch.prom") == {
        "spamscore_batch_date_timestamp_seconds": datetime.datetime(2026, 1, 31, tzinfo=datetime.UTC).timestamp(),
        "spamscore_batch_published_timestamp_seconds": PUBLISHED.timestamp(),
        "spamscore_batch_messages": 1000,
        "spamscore_batch_scored_messages": 990,
        "spamscore_batch_rejected_messages": 10,
        "spamscore_batch_flagged_messages": 99,
        "spamscore_batch_flagged_share": 0.1,
        "spamscore_batch_rejected_share": 0.01,
        "spamscore_batch_messages_per_second": 50,
        "spamscore_batch_threshold": 0.8,
        "spamscore_batch_model_version": 3,
        "spamscore_batch_seconds total": 20,
        "spamscore_batch_seconds text": 5,
        "spamscore_batch_seconds network": 12,
        "spamscore_drift_crossed": 1,
        "spamscore_drift_psi validation": 0.3,
        "spamscore_drift_psi before": 0.1,
        "spamscore_drift_unknown_share": 0.02,
    }
    assert [path.name for path in metrics_folder.iterdir()] == ["spamscore_batch.prom"]


def test_an_empty_batch_has_shares_of_zero_and_accepted_limits_do_not_count_as_crossed(metrics_folder: Path) -> None:
    export_metrics(BATCH, batch_metrics(batch(messages_read=0, scored=0, rejected=0, flagged=0), drift(accepted=True)))
    metrics = written("spamscore_batch.prom")
    assert metrics["spamscore_batch_messages"] == metrics["spamscore_batch_flagged_share"] == 0
    assert metrics["spamscore_drift_crossed"] == 0


@pytest.mark.parametrize("failed", [True, False])
def test_run_and_batch_are_exported_separately(metrics_folder: Path, failed: bool) -> None:
    before = datetime.datetime.now(datetime.UTC).timestamp()
    export_metrics(RUN, run_metrics(Alerts({f"{FAILURE} {DATE}": {}}), failed, 12.5))
    metrics = written("spamscore_run.prom")
    assert metrics.pop("spamscore_run_ended_timestamp_seconds") >= before
    assert metrics == {
        "spamscore_run_failed": float(failed), "spamscore_run_seconds": 12.5, "spamscore_alerts_undelivered": 0,
        "spamscore_alerts_open failure": 1, "spamscore_alerts_open drift": 0, "spamscore_alerts_open deadline": 0,
        "spamscore_alerts_open rejected": 0,
    }  # fmt: skip


def test_pushing_one_part_keeps_the_other_part_on_the_pushgateway(set_settings: Callable[..., None]) -> None:
    with web_server() as web:
        set_settings("metrics", pushgateway=web.url.replace("://", "://ann:p%%40ss@"))
        export_metrics(BATCH, batch_metrics(batch(), None))
        export_metrics(RUN, run_metrics(Alerts(), False, 1.0))
    assert [path for path, _ in web.received] == ["/metrics/job/spamscore"] * 2
    assert web.logins == [f"Basic {base64.b64encode(b'ann:p@ss').decode()}"] * 2
    assert web.methods == ["POST", "POST"]  # PUT would replace the other part
    assert "spamscore_batch_model_version" in read(web.received[0][1].decode())
    assert "spamscore_run_failed" in read(web.received[1][1].decode())


def test_a_failed_export_is_logged_and_does_not_stop_the_run(
    set_settings: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    set_settings("metrics", textfile_folder="nowhere", pushgateway="http://127.0.0.1:9")
    export_metrics(RUN, run_metrics(Alerts(), False, 1.0))
    assert "[metrics] textfile_folder = nowhere: No such file or directory" in caplog.text
    assert "[metrics] pushgateway: not pushed: [Errno 111] Connection refused" in caplog.text
