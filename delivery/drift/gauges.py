"""Drift as Prometheus reads it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily

from delivery.drift.columns import metric_name
from delivery.drift.monitor import Drift, DriftMonitor

AT_MOST_EVERY_S = 5.0


class DriftCollector:
    """Gives the gauges of all monitors; register it with the registry that serving exports.

    Args:
        monitors: Gives, at each scrape, the monitors by model name and version.
        clock: Seconds; a check is repeated only after `AT_MOST_EVERY_S`, however many scrape.
    """

    def __init__(
        self,
        monitors: Callable[[], Mapping[tuple[str, int], DriftMonitor]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monitors, self._clock = monitors, clock
        self._lock = threading.Lock()
        self._checked: dict[tuple[str, int], tuple[float, Drift]] = {}

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges, by model, version and column."""
        labels = ["model", "version"]
        samples = GaugeMetricFamily("phalanx_drift_samples", "Samples that drift was watched on.", labels=labels)
        alarm = GaugeMetricFamily("phalanx_drift_alarm", "1 while any column has drifted.", labels=labels)
        of_column = [*labels, "column"]
        psi = GaugeMetricFamily("phalanx_drift_psi", "Population stability index to training.", labels=of_column)
        ks = GaugeMetricFamily("phalanx_drift_ks", "Kolmogorov-Smirnov distance to training.", labels=of_column)
        drifted = GaugeMetricFamily("phalanx_drift_column_alarm", "1 while the column has drifted.", labels=of_column)
        changes = GaugeMetricFamily("phalanx_drift_changes", "Changes that ADWIN saw in the stream.", labels=of_column)
        for (model, version), drift in self._checks().items():
            key = [model, str(version)]
            samples.add_metric(key, drift.num_seen)
            alarm.add_metric(key, float(bool(drift.alarms)))
            for name, score in drift.scores.items():
                column = [*key, metric_name(name)]
                psi.add_metric(column, score.psi)
                drifted.add_metric(column, float(score.alarm))
                if score.ks is not None:
                    ks.add_metric(column, score.ks)
            for name, count in drift.changes.items():
                changes.add_metric([*key, metric_name(name)], count)
        return [samples, alarm, psi, ks, drifted, changes]

    def _checks(self) -> dict[tuple[str, int], Drift]:
        with self._lock:
            now = self._clock()
            fresh = {}
            for key, monitor in self._monitors().items():
                checked = self._checked.get(key)
                if checked is None or now - checked[0] >= AT_MOST_EVERY_S:
                    checked = (now, monitor.check())
                fresh[key] = checked
            self._checked = fresh
            return {key: drift for key, (_, drift) in fresh.items()}
