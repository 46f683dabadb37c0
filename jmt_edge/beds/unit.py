"""The observer that sends a run to a broker: results, alarms, quality, what the unit is, and whether it is there."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

from .. import __version__
from ..engine.bundle import INTENDED_USE
from ..faults import one_item
from ..live.alarms import Alarm, AlarmSettings, State
from ..live.judge import Judge
from ..observer import Observer, RunInfo
from ..result import Result
from ..summary import Summary, notice
from .broker import Broker
from .publisher import Publisher

log = logging.getLogger(__name__)

DISCOVERY = "homeassistant"
QUALITY_PERIOD = 2.0  # s between two reports of a quality whose reason alone changes
_SHOWN = (State.ACTIVE, State.ACKNOWLEDGED, State.LATCHED)


class BedUnit(Observer):
    """judge: the run's, so that all have the same alarms and a person acknowledges for all; who owns it comes before
    this observer.

    discovery: the topic below which Home Assistant looks for devices; empty: do not announce this one.
    """

    def __init__(self, broker: Broker, bed: str, judge: Judge, *, discovery: str = "") -> None:
        self._publisher = Publisher(broker, bed)
        self._discovery = discovery.strip("/")
        self._judge = judge
        self._judge.alarms.listeners.append(self._on_alarm)
        self._judge.on_settings.append(self._on_settings)
        self._info: RunInfo | None = None
        self._quality: dict[str, bool] = {}
        self._quality_at = 0.0

    def on_start(self, info: RunInfo) -> None:
        self._info = info
        self._publisher.keep("config", self._config(info))
        self._publisher.keep("alarms", {"alarms": [], "signal": ""})
        if self._discovery:
            for topic, body in home_assistant(self._discovery, self._publisher, info).items():
                self._publisher.keep(topic, body)
        self._publisher.start()

    def on_clock(self, t: float, step: float) -> None:
        self._keep_alarms(self._judge.snapshot(time.monotonic()))  # since when they are on

    def on_result(self, result: Result) -> None:
        with one_item("mqtt message"):
            self._publisher.add("result", {"index": result.index, **result.to_dict()})
            now, usable = time.monotonic(), {name: q.ok for name, q in result.quality.items()}
            if usable != self._quality or now - self._quality_at > QUALITY_PERIOD:
                self._quality, self._quality_at = usable, now
                shown = {name: {"ok": q.ok, "reason": q.reason} for name, q in result.quality.items()}
                self._publisher.keep("quality", shown)

    def on_end(self, summary: Summary) -> None:
        unsent = self._publisher.close(summary.failed)
        if unsent:
            log.warning("mqtt: %d messages were not delivered; a recording (--record) has them", unsent)

    def _on_alarm(self, alarm: Alarm, before: State) -> None:
        """An alarm changed; called where it is judged."""
        if alarm.state not in _SHOWN and before not in _SHOWN:
            return  # its delay runs, or was not over
        with one_item("mqtt message"):
            snapshot = self._judge.snapshot(time.monotonic())
            self._publisher.add("alarm", {"before": before.value, **_shown(alarm, snapshot)})
            self._keep_alarms(snapshot)

    def _keep_alarms(self, snapshot: dict[str, Any]) -> None:
        whole = [{k: v for k, v in entry.items() if k != "seconds"} for entry in snapshot["alarms"]]
        self._publisher.keep("alarms", {"alarms": whole, "signal": snapshot["signal"]["priority"]})

    def _on_settings(self, settings: AlarmSettings) -> None:
        if self._info is not None:
            with one_item("mqtt message"):
                self._publisher.keep("config", self._config(self._info))

    def _config(self, info: RunInfo) -> dict[str, Any]:
        task = info.bundle.task
        return {
            "version": __version__, "run": self._publisher.run, "bed": self._publisher.bed, "bundle": info.bundle.id,
            "demo": info.bundle.demo, "notice": notice(info.bundle.demo, info.bundle.subject),
            "intended_use": INTENDED_USE,
            "task": task.name, "outputs": list(task.outputs), "modalities": list(task.names), "sources": info.sources,
            "hop": info.hop, "smooth": info.smooth, "backend": info.backend, "precision": info.precision,
            "novelty": info.novelty, "uncertainty": info.uncertainty, "alarms_off": info.alarms_off,
            "limit": self._judge.alarms.settings.limit, "realtime": info.realtime,
        }  # fmt: skip


def _shown(alarm: Alarm, snapshot: dict[str, Any]) -> dict[str, Any]:
    """The alarm as the page shows it; what is no longer shown has its last text."""
    for entry in snapshot["alarms"]:
        if entry["id"] == alarm.id:
            return {k: v for k, v in entry.items() if k != "seconds"}
    return {
        "id": alarm.id, "kind": alarm.kind, "priority": alarm.priority.value, "state": alarm.state.value,
        "text": alarm.past or alarm.text, "detail": alarm.detail,
    }  # fmt: skip


def home_assistant(discovery: str, publisher: Publisher, info: RunInfo) -> dict[str, dict[str, Any]]:
    """Topic -> configuration of each entity of MQTT discovery: a sensor an output, the alarm, each modality.

    Late results do not become a sensor's state, and no result is `unknown`.
    """
    bed, base = publisher.bed, publisher.status.rpartition("/")[0]
    node = re.sub(r"[^\w-]", "_", f"jmt_edge_{base}")
    notes = notice(info.bundle.demo, info.bundle.subject)
    common = {
        "availability_topic": f"{base}/status",
        "availability_template": "{{ 'online' if value_json.state == 'live' else 'offline' }}",
        "qos": 1,
        "device": {
            "identifiers": [node], "name": f"{bed} ({notes})", "manufacturer": "jmt-edge", "model": info.bundle.id,
            "sw_version": __version__,
        },
        "origin": {"name": "jmt-edge", "sw_version": __version__},
    }  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for name in info.bundle.task.outputs:
        value = f"value_json.result.outputs.{name} if value_json.result.outputs else None"
        found[f"{discovery}/sensor/{node}/{name}/config"] = {
            **common, "name": f"{name} probability" if name == "pain" else name, "unique_id": f"{node}_{name}",
            "state_topic": f"{base}/result", "state_class": "measurement", "suggested_display_precision": 2,
            "value_template": f"{{{{ this.state if value_json.late else ({value}) }}}}",
            "expire_after": max(5, round(10 * info.hop)),
        }  # fmt: skip
    found[f"{discovery}/binary_sensor/{node}/alarm/config"] = {
        **common, "name": "alarm", "unique_id": f"{node}_alarm", "device_class": "problem",
        "state_topic": f"{base}/alarms", "value_template": "{{ 'ON' if value_json.alarms else 'OFF' }}",
        "json_attributes_topic": f"{base}/alarms",
    }  # fmt: skip
    for name in info.bundle.task.names:
        found[f"{discovery}/binary_sensor/{node}/{name}/config"] = {
            **common, "name": f"{name} usable", "unique_id": f"{node}_{name}_usable",
            "state_topic": f"{base}/quality", "value_template": f"{{{{ 'ON' if value_json.{name}.ok else 'OFF' }}}}",
            "entity_category": "diagnostic",
        }  # fmt: skip
    return found
