"""Recipes: one JSON file each under `recipes/`, with a paper's values; options override them by dotted name.

The resolved recipe is saved with every run, so a run can be repeated from its folder alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from ..clips.baseline import MODES, with_baseline
from ..errors import ConfigError, short
from ..preprocessing.actions import as_measured
from ..tasks import (
    CLIP_AUDIO_SAMPLES,
    FUSIONS,
    LONGEST_REST,
    SHORTEST_REST,
    TASK_NAMES,
    Modality,
    Task,
    get_task,
    split_steps,
)
from .data import PAIN_CLASSES
from .frame_features import as_precomputed

RECIPE_FUSIONS = (*FUSIONS, "intra_fc", "intra_tr")
OPTIMIZERS, SCHEDULES = ("sgd", "adam", "adamw"), ("constant", "cosine", "plateau", "onecycle")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # Lightning's names
Grid = dict[str, list[str]]
FACE_ACTIONS = "face_actions"  # the backbone that takes measures of a face, not its picture
EXPORTABLE = ("jmt", "vanilla", "concat")  # fusions of the task presets, which a live run can use
_FOLDER = resources.files(__package__) / "recipes"


@dataclass(frozen=True)
class Stage:
    """One optimisation: a backbone with its pretraining head, or a fusion on cached features."""

    optimizer: str = "sgd"  # sgd (momentum 0.9), adam, adamw
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    batch: int = 32
    epochs: int = 50
    patience: int = 10  # epochs without a better validation score before stopping
    schedule: str = "constant"  # constant, cosine, plateau, onecycle (per step, to train from scratch)
    warmup: int = 0  # epochs of linear warm-up
    dropout: float = 0.0  # in the linear layers of the head
    balance: bool = False  # weight each pain class by the inverse of its share in training

    def __post_init__(self) -> None:
        for name, right in (
            ("optimizer", self.optimizer in OPTIMIZERS), ("schedule", self.schedule in SCHEDULES),
            ("batch", self.batch >= 1), ("epochs", self.epochs >= 0), ("patience", self.patience >= 0),
            ("lr", self.lr > 0), ("dropout", 0 <= self.dropout < 1),
        ):  # fmt: skip
            if not right:
                raise ConfigError(f"a stage's {name} cannot be {getattr(self, name)}; see docs/reference/recipes.md")


@dataclass(frozen=True)
class Augment:
    """How clips are varied in training. The features of `variants` copies are cached; the first is the clip itself."""

    flip: bool = False
    crop: int = 0  # pixels that a face may shift in each direction
    brightness: float = 0.0  # SD of a factor on the pixels
    jitter: float = 0.0  # pixels of 100 of a face by which its place, size and tilt may each be off, 0 to 10
    grey_noise: int = 0  # grey levels, either way, by which each value of each frame may be off, 0 to 32
    jpeg: float = 0.0  # share of the face clips that are compressed (quality 60 to 95), 0 to 1
    voice_gain: float = 0.0  # dB, SD
    eda_offset: float = 0.0  # µS, SD
    eda_gain: float = 0.0  # SD of the log of a factor on the deviations from the clip's mean
    eda_noise: float = 0.0  # µS, SD
    eda_shift: float = 0.0  # share of the clip by which it may move in time, either way; the edge is repeated
    eda_sensor: float = 0.0  # share of the clips that are as another sensor gives them (`sensors.SENSORS`), 0 to 1
    eda_contact: float = 0.0  # µS, SD of the slow noise of the electrodes' contact, 0 to 5
    eda_spikes: float = 0.0  # spikes of the contact a second, 0 to 5
    variants: int = 1

    def __post_init__(self) -> None:
        ranges = {"jitter": (0, 10), "grey_noise": (0, 32), "jpeg": (0, 1), "variants": (1, 1000)}
        ranges |= {"eda_sensor": (0, 1), "eda_contact": (0, 5), "eda_spikes": (0, 5)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"augment.{name} cannot be {getattr(self, name)}; give {low} to {high}")


@dataclass(frozen=True)
class Masking:
    """How the missing-modality path is trained: probabilities per window."""

    modality: float = 0.0  # one modality is absent in the whole window
    step: float = 0.0  # a modality is absent in a single step, per step
    warmup: float = 0.0  # the oldest 1..S-1 steps are absent, as when a run begins
    noise: float = 0.0  # SD of noise on the features, in units of their own SD


@dataclass(frozen=True)
class Recipe:
    """A system to train. See the files under `recipes/`."""

    name: str
    title: str
    source: str
    task: str
    row: int = 0  # of the list in docs/reference/recipes.md
    layout: str = "biovid"
    variant: str = "full"
    fusion: str = "jmt"  # one of RECIPE_FUSIONS; unimodal: one backbone with its head
    head: str = "self_attention"
    attention: str = "standard"
    heads: int = 1
    steps: int = 0  # 0: the task's own; more cuts a one-step task, or sets the length of a sequence
    recursions: int = 0  # of joint cross attention; 0: the fusion's own
    modalities: tuple[str, ...] = ()  # () all of the task's
    outputs: tuple[str, ...] = ()
    shapes: dict[str, list[int]] = field(default_factory=dict)  # modality -> clip shape that replaces the task's
    spans: dict[str, float] = field(default_factory=dict)
    backbone: dict[str, str] = field(default_factory=dict)  # modality -> backbone that replaces the task's
    second: str = ""  # the second backbone of the first modality, trained apart and combined with the first
    intra: Literal["", "fc", "tr"] = ""  # how, where a fusion follows; alone, the fusion is intra_fc or intra_tr
    features: dict[str, str] = field(default_factory=dict)  # modality -> folder of precomputed ones, `frame_features`
    text: str = ""  # folder of text features for joint cross attention, <trial>.npy (rows, 768)
    audio_gru: bool = False  # a GRU over the steps behind the voice backbone
    width: dict[str, int] = field(default_factory=dict)
    voice_top_db: float = 0.0  # dB below a voice clip's maximum to which its levels are raised; 0: not at all
    voice_pad: int = 0  # samples of silence up to which a young recording's clip is filled; 0: the whole clip
    voice_pause: Literal["absent", "hold"] = "absent"  # what a step shows that is a pause in speech
    eda_moments: tuple[float, ...] = ()  # (mean, SD) in µS of the fixed normalisation of EDA; () leaves µS
    baseline: Literal["none", "rest"] = "none"  # rest: clips relative to each person's own rest (`baseline.py`)
    baseline_seconds: float = 120.0  # s of each subject's rest, which are neither trained on nor scored
    calibrated: bool = False  # EDA in units of each person's own mean and SD (`persons.py`)
    classes: tuple[str, ...] = PAIN_CLASSES
    hop: float = 0.0  # s between a long trial's windows in training, whole steps; 0: one. Every step is scored
    protocol: str = "holdout"  # holdout, kfold:K, loso, loso67, official
    ensemble: bool = False  # best-valence checkpoint gives valence, best-arousal checkpoint arousal
    weights: dict[str, str] = field(default_factory=dict)  # modality -> "torchvision" or a file
    stages: dict[str, Stage] = field(default_factory=dict)  # modality, or "fusion"
    augment: Augment = Augment()
    masking: Masking = Masking()
    precision: str = "32-true"
    notes: str = ""

    def resolve(self) -> Task:
        """The task preset with this recipe's changes. Raises ConfigError where they do not fit."""
        if self.fusion not in RECIPE_FUSIONS:
            raise ConfigError(f"recipe {self.name}: fusion '{self.fusion}' is not one of {', '.join(RECIPE_FUSIONS)}")
        alone = self.fusion.startswith("intra_")
        ways = ("",) if alone or not self.second or self.fusion == "unimodal" else ("fc", "tr")
        if self.intra not in ways or (alone and not self.second) or (self.second and self.fusion == "unimodal"):
            raise ConfigError(
                f"recipe {self.name}: second = '{self.second}', intra = '{self.intra}' and fusion = '{self.fusion}' do "
                "not fit; a second backbone is combined by intra = fc or tr before a fusion of several modalities, or "
                "alone by the fusion intra_fc or intra_tr"
            )
        if not (0 <= self.voice_top_db <= 1000 and 0 <= self.voice_pad <= CLIP_AUDIO_SAMPLES):
            raise ConfigError(
                f"recipe {self.name}: voice_top_db = {self.voice_top_db:g} and voice_pad = {self.voice_pad} cannot be "
                f"used; give dB from 0 to 1000 and samples from 0 to {CLIP_AUDIO_SAMPLES}"
            )
        if self.calibrated and self.backbone.get("eda") == "eda_pooled":
            raise ConfigError(
                f"recipe {self.name}: eda_pooled takes the logarithm of the conductance, which is lost with "
                "calibrated = true; use eda_cnn1d_centred"
            )
        boards = [n for n in ("eda_sensor", "eda_contact", "eda_spikes") if getattr(self.augment, n)]
        moved = "calibrated = true" if self.calibrated else "baseline = rest" if self.baseline == "rest" else ""
        if moved and boards:
            raise ConfigError(
                f"recipe {self.name}: augment.{boards[0]} changes a conductance as a sensor gives it, and {moved} has "
                f"moved and scaled it before; set augment.{boards[0]} = 0"
            )
        self._check_baseline()
        used = {**self.backbone, "second": self.second}
        wrong = next((key for key, b in used.items() if FACE_ACTIONS in b and (key, b) != ("face", FACE_ACTIONS)), None)
        if wrong is not None:
            raise ConfigError(
                f"recipe {self.name}: {FACE_ACTIONS} takes measures of a face, which no other backbone does, so it "
                f"cannot be used as {wrong} = '{used[wrong]}'; use it alone, with backbone.face = {FACE_ACTIONS}"
            )
        alien = [m for m in self.features if m not in (self.modalities or get_task(self.task).names)]
        if alien or (self.features and (self.second or self.calibrated)):
            why = f"it has no {alien[0]}" if alien else "they do not go with `second` or `calibrated`"
            raise ConfigError(f"recipe {self.name}: features = {self.features} cannot be used, because {why}")
        task = get_task(self.task, self.variant)  # type: ignore[arg-type]
        names = self.modalities or task.names
        modalities = tuple(self._modality(task.modality(n)) for n in names)
        outputs = self.outputs or task.outputs
        fusion: Any = self.fusion if self.fusion in EXPORTABLE else "jmt"
        changes: dict[str, Any] = {"head": self.head, "attention": self.attention, "heads": self.heads}
        task = replace(task, modalities=modalities, outputs=outputs, fusion=fusion, **changes)
        if self.baseline == "rest" and not with_baseline(task):
            raise ConfigError(
                f"recipe {self.name}: baseline = rest changes EDA, voice and measures of a face (backbone.face = "
                f"{FACE_ACTIONS}), and this recipe has none of them; use baseline = none"
            )
        if self.steps and self.steps != task.steps:
            task = split_steps(task, self.steps) if task.steps == 1 else replace(task, steps=self.steps)
        return task

    def _check_baseline(self) -> None:
        if self.baseline not in MODES or not SHORTEST_REST <= self.baseline_seconds <= LONGEST_REST:
            raise ConfigError(
                f"recipe {self.name}: baseline = '{self.baseline}' of {self.baseline_seconds:g} s cannot be used; give "
                f"{' or '.join(MODES)}, and {SHORTEST_REST:g} to {LONGEST_REST:g} s, as a live run does"
            )
        if self.baseline == "rest" and (self.calibrated or self.second or self.text):
            raise ConfigError(
                f"recipe {self.name}: baseline = rest does not go with `calibrated`, `second` or `text`; leave one out"
            )

    def _modality(self, m: Modality) -> Modality:
        settings: dict[str, dict[str, Any]] = {
            "backbone": self.backbone, "width": self.width, "shape": self.shapes, "span": self.spans,
        }  # fmt: skip
        changes: dict[str, Any] = {key: values[m.name] for key, values in settings.items() if m.name in values}
        if "shape" in changes:
            changes["shape"] = tuple(changes["shape"])
        if m.name == "voice":
            changes |= {"top_db": self.voice_top_db, "pad": self.voice_pad, "pause": self.voice_pause}
        if m.name == "eda" and self.eda_moments:
            changes["mean"], changes["std"] = self.eda_moments[:1], self.eda_moments[1:]
        m = replace(m, **changes)
        if m.name in self.features:
            return as_precomputed(m, Path(self.features[m.name]))
        return as_measured(m) if m.backbone == FACE_ACTIONS else m

    def stage(self, name: str) -> Stage:
        return self.stages.get(name, Stage())

    def backbones(self) -> tuple[str, ...]:
        """The networks before the fusion, in the order of the modalities; a second one after its first."""
        first, *others = (m.backbone for m in self.resolve().modalities)
        return (first, *([self.second] if self.second else []), *others)

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))


def names() -> list[str]:
    return sorted(f.name.removesuffix(".json") for f in _FOLDER.iterdir() if f.name.endswith(".json"))


def load_recipe(name_or_file: str, overrides: Iterable[str] = (), *, variant: str = "") -> Recipe:
    """The recipe of that name or file, with `key=value` overrides (`fusion.lr=1e-4`, `masking.modality=0.3`).

    variant `demo`: small networks, trained from scratch (`as_demo`); overrides apply after it.
    Raises ConfigError naming the key of anything unknown or of the wrong type.
    """
    file = Path(name_or_file)
    if file.suffix == ".json":
        if not file.is_file():
            raise ConfigError(f"no recipe file at {file}; `jmt-edge train --list` lists the built-in recipes")
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"recipe {file} cannot be read ({short(error)}); give a JSON file") from None
    elif name_or_file in names():
        text = (_FOLDER / f"{name_or_file}.json").read_text()
    else:
        raise ConfigError(f"unknown recipe '{name_or_file}': choose one of {', '.join(names())}, or give a .json file")
    try:
        data = json.loads(text)
    except RecursionError:
        raise ConfigError(f"recipe {name_or_file} is nested too deeply; fix the file") from None
    except ValueError as error:
        raise ConfigError(f"recipe {name_or_file} is not valid JSON ({error}); fix the file") from None
    if not isinstance(data, dict):
        raise ConfigError(f"recipe {name_or_file} is not an object; fix the file")
    if variant == "demo":
        data = as_demo(data)
    elif variant:
        data["variant"] = variant
    for text in overrides:
        override(data, text)
    backbone, weights = data.get("backbone"), data.get("weights")
    if isinstance(backbone, dict) and backbone.get("face") == FACE_ACTIONS and isinstance(weights, dict):
        data["weights"] = {k: v for k, v in weights.items() if (k, v) != ("face", "torchvision")}  # of pictures
    if isinstance(features := data.get("features"), dict) and isinstance(data.get("weights"), dict):
        data["weights"] = {k: v for k, v in data["weights"].items() if k not in features}
    recipe = from_dict(data)
    if recipe.precision not in PRECISIONS:  # a bundle's recipe may name another, of its networks
        raise ConfigError(f"precision '{recipe.precision}' is unknown; choose {', '.join(PRECISIONS)}")
    return recipe


DEMO_TAKES = ("stages", "backbone", "eda_moments", "augment", "masking")


def as_demo(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe for the demo width. The papers' learning rates suit wide, pretrained networks, so optimisers, EDA
    normalisation, augmentation and masking are those of `demo-<task>`; modalities and fusion stay.
    """
    whose = f"recipe {data.get('name', '?')}"
    task, backbones, stages = data.get("task"), data.get("backbone", {}), data.get("stages", {})
    if task not in TASK_NAMES:
        raise ConfigError(f"{whose}: task {task!r} is not one of {', '.join(TASK_NAMES)}")
    for key, value in (("backbone", backbones), ("stages", stages)):
        if not isinstance(value, dict):
            raise ConfigError(f"{whose}.{key}: expected an object, found {value!r}")
    demo = json.loads((_FOLDER / f"demo-{task}.json").read_text())
    used = data.get("modalities") or list(demo["stages"])
    if not isinstance(used, list) or not all(isinstance(name, str) for name in used):
        raise ConfigError(f"{whose}.modalities: expected a list of names, found {used!r}")
    backbone = {m: b for m, b in demo.get("backbone", {}).items() if m in used}
    taken = {key: demo[key] for key in DEMO_TAKES if key in demo}
    taken["backbone"] = {**backbone, **backbones}
    of = {"second": next(iter(used))}  # a second backbone is trained as the first
    taken["stages"] = {name: demo["stages"].get(of.get(name, name), s) for name, s in stages.items()}
    return {**data, **taken, "variant": "demo", "weights": {}}


def from_dict(data: dict[str, Any]) -> Recipe:
    recipe: Recipe = _build(Recipe, data, str(data.get("name", "?")))
    recipe.resolve()
    return recipe


def key_value(text: str, option: str, example: str) -> tuple[str, str]:
    """The sides of `KEY=VALUE`. Raises ConfigError for text without `=` or key."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{option} '{text}' is not KEY=VALUE; write for example {example}")
    return key, value


def parse_grid(texts: Sequence[str]) -> Grid:
    """`lr=1e-3,1e-4` -> {"lr": ["1e-3", "1e-4"]}. Raises ConfigError for another form."""
    grid: Grid = {}
    example = "lr=8e-4,6e-4,3e-4"
    for text in texts:
        key, values = key_value(text, "--grid", example)
        grid[key] = [v.strip() for v in values.split(",")]
        if not all(grid[key]):
            raise ConfigError(f"--grid '{text}' has an empty value; write for example {example}")
        if key.startswith("baseline"):
            raise ConfigError(
                f"--grid '{text}' would compare losses of other windows, as each rest leaves others to score; train "
                f"each with --set {key}=VALUE"
            )
    return grid


def grid_changes(texts: Sequence[str]) -> Iterator[tuple[str]]:
    """Every value of a grid as one change of a recipe, `lr=1e-3`. Raises ConfigError as `parse_grid` does."""
    for key, values in parse_grid(texts).items():
        yield from ((f"{key}={value}",) for value in values)


def override(data: dict[str, Any], text: str) -> None:
    """Change one setting of a recipe's JSON. Raises ConfigError where it has no such place."""
    key, value = key_value(text, "--set", "fusion.lr=1e-4")
    parts = key.split(".")
    if len(parts) == 1 and parts[0] in {f.name for f in fields(Stage)} - {f.name for f in fields(Recipe)}:
        # `lr=` without a stage is of the stage that trains the system itself
        alone = data.get("fusion") == "unimodal" and data.get("modalities")
        parts = ["stages", alone[0] if alone else "fusion", parts[0]]
    elif len(parts) == 2 and parts[0] in ("face", "voice", "eda", "second", "fusion"):
        parts = ["stages", *parts]
    target = data
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ConfigError(f"'{key}' is not a setting of a recipe; see docs/reference/recipes.md")
    try:
        target[parts[-1]] = json.loads(value)
    except RecursionError:
        raise ConfigError(f"the value of '{key}' is nested too deeply; give a number, a name or a list") from None
    except ValueError:
        target[parts[-1]] = value.split(",") if parts[-1] in ("modalities", "outputs", "classes") else value


def _build(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"recipe {where}: expected an object, found {data!r}")
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(f"recipe {where} has no setting '{unknown[0]}'; known: {', '.join(known)}")
    lacking = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in data]
    if lacking:
        raise ConfigError(f"recipe {where} lacks '{lacking[0]}'; add it")
    return cls(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in data.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _build(kind, value, where)
    origin = getattr(kind, "__origin__", None)
    if origin is dict:
        inner = get_args(kind)[1]
        if not isinstance(value, dict):
            raise ConfigError(f"recipe {where}: expected an object, found {value!r}")
        return {k: _value(inner, v, f"{where}.{k}") for k, v in value.items()}
    if origin is tuple:
        inner = get_args(kind)[0]
        return tuple(_value(inner, v, where) for v in (value if isinstance(value, (list, tuple)) else [value]))
    if origin is list:
        return [_value(get_args(kind)[0], v, where) for v in value]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 1e300:
            raise ConfigError(f"recipe {where}: the number is too large")
        return float(value)
    if origin is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"recipe {where}: {value!r} is not one of {', '.join(map(repr, get_args(kind)))}")
        return value
    if kind in (int, float, str, bool) and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise ConfigError(f"recipe {where}: {value!r} is not a {kind.__name__}")
    return value
