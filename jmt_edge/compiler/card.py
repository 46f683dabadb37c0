"""The model card of a bundle, `README.md`, in the Hugging Face Hub's format: YAML front matter, then Markdown.

Everything in it comes from the manifest. Subject ids stay there: a card is the part of a bundle that people pass on.
It has no date, so the same model gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..engine.bundle import INTENDED_USE
from ..markdown import table
from ..tasks import Task

CARD = "README.md"
REPOSITORY_TAGS = ("onnx", "multimodal", "emotion-recognition")
# our metric -> the Hub's type of metric, where it has one
_METRICS = {"accuracy": "accuracy", "f1": "f1", "auc": "roc_auc", "brier": "brier_score"}
_SIGNAL = {"face": "video of one face", "voice": "sound, 44.1 kHz mono", "eda": "skin conductance, µS"}


def model_card(manifest: Mapping[str, Any]) -> bytes:
    """`README.md` of the bundle that `manifest` (as given to `write_bundle`) describes."""
    task = Task.from_dict(dict(manifest["task"]))
    provenance = manifest.get("provenance", {})
    body = [
        f"# {_inline(manifest['name'])}", "", *_warnings(manifest), f"**Intended use.** {INTENDED_USE}", "",
        "## What it takes and gives", "", *_interface(task), "", "## How it was made", "", *_origin(provenance), "",
        *_scores(provenance), "## Limits", "", *_limits(task, provenance), "", "## Use", "",
        "```", "jmt-edge live --bundle NAME.jmt", "```", "",
        "`manifest.json` has every setting, the sha256 of every file, and what `calibrate` and `build` added since.",
    ]  # fmt: skip
    return "\n".join([*_front_matter(manifest, task), *body, ""]).encode()


def _front_matter(manifest: Mapping[str, Any], task: Task) -> Iterator[str]:
    """YAML whose values are JSON, which YAML contains, so that no name can break out of its line."""
    tags = [*REPOSITORY_TAGS, task.name, *task.names]
    data: dict[str, Any] = {"library_name": "jmt-edge", "tags": list(dict.fromkeys(tags))}
    provenance = manifest.get("provenance", {})
    found, source = _numbers(provenance), provenance.get("data", {})
    if found and source:
        metrics = [
            {"type": _METRICS.get(name, name), "name": name, "value": value} for name, (value, _) in found.items()
        ]
        dataset = {"type": str(source.get("layout", "unknown")), "name": str(source.get("root", "unknown"))}
        result = {"task": {"type": "other", "name": task.name}, "dataset": dataset, "metrics": metrics}
        data["model-index"] = [{"name": manifest["name"], "results": [result]}]
    yield "---"
    for key, value in data.items():
        yield f"{key}: {json.dumps(value)}"
    yield "---"
    yield ""


def _warnings(manifest: Mapping[str, Any]) -> Iterator[str]:
    if manifest.get("demo"):
        yield from (
            "> **Demo weights**, trained on simulated people: their numbers mean nothing about a real person.",
            "",
        )
    untrained = list(manifest.get("untrained_networks", ()))
    if untrained:
        yield from (f"> **Untrained:** the weights of {', '.join(untrained)}. Its results are meaningless.", "")


def _interface(task: Task) -> list[str]:
    rows = [
        [m.name, _SIGNAL.get(m.name, ""), f"{m.span:.3g} s", " × ".join(map(str, m.shape)), m.backbone]
        for m in task.modalities
    ]
    what = "pain (probability)" if task.outputs == ("pain",) else ", ".join(task.outputs)
    return [
        *table(["modality", "signal", "clip", "network input", "backbone"], rows),
        "",
        f"Gives {what} from windows of {task.window:.1f} s ({task.steps} step{'s' * (task.steps > 1)}), fused by "
        f"`{task.fusion}` ({task.dim} features, head `{task.head}`).",
    ]


def _origin(provenance: Mapping[str, Any]) -> Iterator[str]:
    recipe, data, split = (provenance.get(k, {}) for k in ("recipe", "data", "split"))
    if data:
        sides = ", ".join(f"{split[k]} {k}" for k in ("train", "validation", "test") if isinstance(split.get(k), int))
        yield (
            f"- Data: {_inline(data.get('root'))} (layout {data.get('layout')}), {data.get('recordings')} recordings "
            f"of {data.get('subjects')} people{f'; split by person: {sides}' if sides else ''}."
        )
    if recipe:
        yield f"- Recipe: `{recipe.get('name')}` ({recipe.get('source', '')}), seed {provenance.get('seed')}."
    if checkpoint := provenance.get("checkpoint"):
        yield f"- Imported from {_inline(checkpoint)} (sha256 `{provenance.get('sha256', '')}`)."
    if note := provenance.get("note"):
        yield f"- {note}."
    if not (data or recipe or provenance.get("checkpoint") or note):
        yield "Not recorded."
    yield "- Licence: not stated; the terms of the data that it was trained on apply."


def _scores(provenance: Mapping[str, Any]) -> Iterator[str]:
    found = _numbers(provenance)
    if not found:
        return
    scores = provenance["scores"]
    yield from ("## Scores", "", f"On {scores.get('windows')} windows of {scores.get('on')}.", "")
    rows = [
        [name, f"{value:.3f}", f"{pair[0]:.3f} to {pair[1]:.3f}" if pair else ""]
        for name, (value, pair) in found.items()
    ]
    yield from (*table(["metric", "score", "95 % by subject"], rows), "")


def _numbers(provenance: Mapping[str, Any]) -> dict[str, tuple[float, Sequence[float] | None]]:
    """Metric -> score and its interval, those that are numbers."""
    scores = provenance.get("scores", {})
    intervals = scores.get("interval95", {}) or {}
    return {
        name: (float(value), intervals.get(name))
        for name, value in scores.items()
        if name != "windows" and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _limits(task: Task, provenance: Mapping[str, Any]) -> Iterator[str]:
    yield "- A score is about people like those it was measured on, and says nothing about others, such as patients."
    yield "- A signal unlike those of the training people should not be trusted; see `novelty` in each result."
    if len(task.names) > 1:
        masking = provenance.get("recipe", {}).get("masking", {})
        trained = any(masking.get(key) for key in ("modality", "step", "warmup"))
        yield (
            f"- Without one of {', '.join(task.names)} the fusion takes its missing-modality path, which "
            + ("was trained with absent modalities." if trained else "no recipe on record trained.")
        )


def _inline(value: object) -> str:
    """A name as inline code, which Markdown does not interpret."""
    return f"`{str(value).replace('`', chr(39))}`"
