"""`GET /metrics`: the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..alarms import Priority
from .model import Model


def prometheus(model: Model, clients: int, sent_bytes: int, wrong_tokens: int = 0, closed: int = 0) -> str:
    """All metrics. An output without a value has no line: missing data never becomes a number."""
    now = time.monotonic()
    out: list[str] = []

    def metric(name: str, kind: str, text: str, values: Iterable[tuple[str, float]]) -> None:
        lines = [f"jmt_edge_{name}{labels} {value:.10g}" for labels, value in values]
        if lines:
            out.extend([f"# HELP jmt_edge_{name} {text}", f"# TYPE jmt_edge_{name} {kind}", *lines])

    result = model.result
    metric("results_total", "counter", "Windows with a result line.", [("", model.result_count)])
    metric("results_with_outputs_total", "counter", "Windows with outputs.", [("", model.with_outputs)])
    dropped = result.dropped if result else 0
    metric("windows_dropped_total", "counter", "Windows dropped because the engine was late.", [("", dropped)])
    metric(
        "last_activity_age_seconds", "gauge", "Time since the loop was last active.", [("", now - model.feed.active)]
    )
    outputs = result.outputs if result and result.outputs else {}
    metric("output", "gauge", "The newest outputs.", [(f'{{name="{n}"}}', v) for n, v in outputs.items()])
    if result is not None:
        usable = [(f'{{modality="{n}"}}', float(q.ok)) for n, q in result.quality.items()]
        metric("modality_usable", "gauge", "1 where the modality took part in the newest result.", usable)
        shares = [(f'{{modality="{n}"}}', a) for n, a in result.attention.items() if a is not None]
        metric("attention", "gauge", "Share of the modality in the last fusion step.", shares)
    spread = model.percentiles()
    if spread is not None:
        values = [('{quantile="0.5"}', spread[0] / 1e3), ('{quantile="0.95"}', spread[1] / 1e3)]
        metric("latency_seconds", "gauge", "Latency from a window's end to its result, recent windows.", values)
    sensors = [(f'{{modality="{n}"}}', float(not s["lost"])) for n, s in model.sensors(now).items() if s["source"]]
    metric("sensor_up", "gauge", "1 while the sensor delivers samples.", sensors)
    shown = [alarm for alarm in model.alarms.alarms.values() if alarm.shown]
    alarms = [(f'{{priority="{p.value}"}}', float(sum(a.priority is p for a in shown))) for p in Priority]
    metric("alarms", "gauge", "Alarms shown.", alarms)
    metric("recording", "gauge", "1 during a recording.", [("", float(model.controls.is_recording))])
    metric("page_clients", "gauge", "Browsers connected.", [("", clients)])
    metric("page_sent_bytes_total", "counter", "Bytes sent to browsers.", [("", sent_bytes)])
    metric("page_wrong_tokens_total", "counter", "Wrong tokens received.", [("", wrong_tokens)])
    metric("page_strangers_closed_total", "counter", "Connections without a token closed for room or time.",
           [("", closed)])  # fmt: skip
    faults = [(f'{{part="{name}"}}', float(fault.count)) for name, fault in model.faults.items()]
    metric("faults_total", "counter", "Exceptions that cost one item of work.", faults)
    metric("page_frames_encoded_total", "counter", "Pictures encoded.", [("", model.frames.encoded)])
    return "\n".join(out) + "\n"
