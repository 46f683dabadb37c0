"""Task presets: modalities, how time is cut into clips, outputs, and the widths of the networks.

A window ends at a common time `t`. It holds `steps` clips of each modality. Clip `i` (0 = oldest) of a
modality ends at `t + end - (steps - 1 - i) * stride` and reaches `span` seconds back; `stride` 0 means that
one clip serves all steps. Times are in seconds, image sizes in pixels.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from .errors import ConfigError

KINETICS_MEAN, KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

AUDIO_RATE = 44_100
CLIP_AUDIO_SAMPLES = 47_040  # 32 frames at 30 fps
# The papers' released code (`AmplitudeToDB('power', 80)` and its zeros on the left), for its weights and recipes.
RELEASED_TOP_DB, RELEASED_PAD = 80.0, 45_599
MODALITIES = ("face", "voice", "eda")
SHORTEST_REST, LONGEST_REST = 30.0, 600.0  # s of a person's rest, in training and live
MEASURED_SIDE = 112
PRECOMPUTED = "frame_features"  # the backbone of features that were computed elsewhere, for training alone

# How features are fused (models.md): the JMT with and without its joint branch, or with as many parameters elsewhere,
# the papers' baselines, and joint cross attention with one recursion (jca) or several, over two (rjca) or three
# modalities (rjcma).
FUSIONS = ("jmt", "jmt_no_joint", "jmt_no_joint_wide", "vanilla", "concat", "jca", "rjca", "rjcma", "unimodal")


@dataclass(frozen=True)
class Modality:
    """One input stream of a task.

    `shape` is one clip as the backbone takes it, without the batch axis:
    face (3, T, H, W), or (C, T) where the backbone takes measures of it, voice (1, mels, frames), eda (1, samples).
    `top_db`, `pad` (`preprocessing.voice`) and `pause` (`clips.presence`) are of the voice; their defaults are those of
    the demo bundles, and of bundles that were written before they existed.
    """

    name: str  # face, voice or eda
    backbone: str
    width: int  # channels of the backbone's first stage; the papers' value unless a demo
    shape: tuple[int, ...]
    span: float
    stride: float = 0.0
    end: float = 0.0
    fill: Literal["hold", "black"] = "hold"  # what replaces a frame without a face
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    top_db: float = 0.0  # a clip's levels are raised to this many dB below its maximum; 0: only the floor of 1e-10
    pad: int = 0  # samples of silence up to which a recording that has only begun is filled; 0: up to the span
    pause: Literal["absent", "hold"] = "absent"  # a step that is a pause in speech: absent, or as the step before it

    @property
    def measured(self) -> bool:
        """Whether a face's clips are measures (`preprocessing.actions`), not pictures."""
        return self.name == "face" and len(self.shape) == 2

    @property
    def precomputed(self) -> bool:
        """Whether the clips, (C, T), are features of each frame from files, and not of the signal."""
        return self.backbone == PRECOMPUTED

    @property
    def side(self) -> int:
        """Pixels of a face's aligned crop, which the backbone takes, or which is judged before the face is measured."""
        return MEASURED_SIDE if self.measured else self.shape[-1]

    def clip_ends(self, steps: int) -> list[float]:
        """End of each clip relative to the window's end, oldest first (seconds, <= 0)."""
        return [self.end - (steps - 1 - i) * self.stride for i in range(steps)]

    def geometry(self) -> dict[str, Any]:
        """All that a clip depends on besides the signal."""
        return {k: v for k, v in asdict(self).items() if k not in ("backbone", "width")}


@dataclass(frozen=True)
class Task:
    """A preset: `name` is what is estimated, `variant` the size of the networks."""

    name: str
    variant: Literal["full", "demo"]
    modalities: tuple[Modality, ...]
    outputs: tuple[str, ...]
    steps: int
    dim: int  # feature size of every backbone and of the fusion (512 in the papers)
    fusion: Literal["jmt", "vanilla", "concat"] = "jmt"
    head: Literal["self_attention", "concat"] = "self_attention"
    attention: Literal["standard", "key_based", "sigmoid"] = "standard"
    heads: int = 1  # attention heads; 1 in the papers
    l2_normalise: bool = False  # features, over the feature axis, at the end of each backbone

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.modalities)

    @property
    def window(self) -> float:
        """Seconds of signal needed for one result."""
        return max(m.span - min(m.clip_ends(self.steps)) for m in self.modalities)

    def modality(self, name: str) -> Modality:
        for m in self.modalities:
            if m.name == name:
                return m
        raise ConfigError(f"task '{self.name}' has no modality '{name}'; it has {', '.join(self.names)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a bundle's manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Task:
        """Inverse of `to_dict`. Raises ConfigError where a field is missing, unknown or unusable."""
        try:
            fields = dict(data)
            modalities: list[dict[str, Any]] = [
                {k: tuple(v) if isinstance(v, list) else v for k, v in m.items()} for m in fields["modalities"]
            ]
            fields["modalities"] = tuple(Modality(**m) for m in modalities)
            fields["outputs"] = tuple(fields["outputs"])
            task = cls(**fields)
            wrong = _wrong_fields(task)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = ascii(str(error))[1:-1]  # it may quote a key of the file
            raise ConfigError(f"the task description is malformed ({reason}); rebuild the bundle") from None
        if wrong:
            raise ConfigError(f"the task description is malformed ({', '.join(wrong)}); rebuild the bundle")
        return task


def _wrong_fields(task: Task) -> list[str]:
    """Fields of a task from a file that cannot be used: the wrong type, or an absurd size."""
    wrong = {
        "name": not _is_word(task.name),
        "variant": task.variant not in ("full", "demo"),
        "modalities": not task.modalities or len(set(task.names)) < len(task.modalities),
        "outputs": not task.outputs
        or len(set(task.outputs)) < len(task.outputs)
        or not all(map(_is_word, task.outputs)),
        "steps": not _is_count(task.steps, 4096),
        "dim": not _is_count(task.dim, 65536),
        "fusion": not _is_word(task.fusion),
        "head": not _is_word(task.head),
        "attention": not _is_word(task.attention),
        "heads": not _is_count(task.heads, 65536),
        "l2_normalise": not isinstance(task.l2_normalise, bool),
    }
    for i, m in enumerate(task.modalities):
        sizes = isinstance(m.shape, tuple) and 1 < len(m.shape) < 6 and all(_is_count(n, 1 << 24) for n in m.shape)
        bounds = isinstance(m.mean, tuple) and isinstance(m.std, tuple) and len(m.mean) == len(m.std)
        channels = m.shape[0] if sizes else 0
        wrong |= {
            f"modalities[{i}].{field}": value
            for field, value in {
                "name": m.name not in MODALITIES,
                "backbone": not _is_word(m.backbone),
                "width": not _is_count(m.width, 65536),
                "shape": not sizes or math.prod(m.shape) > 1 << 28,
                "span": not (_is_number(m.span) and 0 < m.span <= 3600),
                "stride": not (_is_number(m.stride) and 0 <= m.stride <= 3600),
                "end": not (_is_number(m.end) and -3600 <= m.end <= 0),
                "fill": m.fill not in ("hold", "black"),
                "mean": not bounds or not all(map(_is_number, m.mean)),
                "std": not bounds or not all(_is_number(x) and x > 0 for x in m.std),
                "top_db": not (_is_number(m.top_db) and 0 <= m.top_db <= 1000),
                "pause": m.pause not in ("absent", "hold"),
                "pad": m.pad != 0 and not _is_count(m.pad, round(m.span * AUDIO_RATE) if _is_number(m.span) else 0),
                "mean and std": bounds and len(m.mean) not in _moments(m, channels),
            }.items()
        }
    return [field for field, value in wrong.items() if value]


def _moments(m: Modality, channels: int) -> tuple[int, ...]:
    """How many means and standard deviations a modality may have."""
    pictures = m.name == "face" and not m.measured
    return (3,) if pictures else (channels,) if m.name == "face" else (0, channels)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 0 < value <= most


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12


_CLIP = CLIP_AUDIO_SAMPLES / AUDIO_RATE  # 1.0667 s


def _face_pain() -> Modality:
    # 5.5 s trial: the first 2.0 s and the last 0.5 s are left out, as in the papers
    return Modality("face", "r3d_18", 64, (3, 10, 112, 112), span=3.0, end=-0.5, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _face_affect(fill: Literal["hold", "black"], stride: float) -> Modality:
    return Modality(
        "face", "r2plus1d_18", 64, (3, 8, 112, 112), span=_CLIP, stride=stride, fill=fill,
        mean=KINETICS_MEAN, std=KINETICS_STD,
    )  # fmt: skip


def _voice(stride: float) -> Modality:
    return Modality("voice", "resnet18_audio", 64, (1, 64, 107), _CLIP, stride, mean=(-14.8,), std=(19.895,))


def _eda() -> Modality:
    return Modality("eda", "eda_cnn1d", 32, (1, 2816), span=5.5)


_FULL = {
    "pain": Task("pain", "full", (_face_pain(), _eda()), ("pain",), steps=1, dim=512),
    "affect": Task(
        "affect", "full", (_face_affect("black", _CLIP), _voice(_CLIP)), ("valence", "arousal"),
        steps=16, dim=512, l2_normalise=True,
    ),
    "trimodal": Task(
        "trimodal", "full", (_face_affect("hold", 1.0), _voice(1.0), _eda()), ("pain", "valence", "arousal"),
        steps=4, dim=512,
    ),
}  # fmt: skip

_DEMO_DIM, _DEMO_FACE_SIZE = 64, 64
_DEMO_WIDTH = {"face": 8, "voice": 8, "eda": 8}


def _demo(task: Task) -> Task:
    def shrink(m: Modality) -> Modality:
        shape = (*m.shape[:2], _DEMO_FACE_SIZE, _DEMO_FACE_SIZE) if m.name == "face" else m.shape
        return replace(m, width=_DEMO_WIDTH[m.name], shape=shape)

    return replace(task, variant="demo", dim=_DEMO_DIM, modalities=tuple(shrink(m) for m in task.modalities))


OPTIONS = {"face": "camera", "voice": "microphone", "eda": "eda"}  # modality -> the option that names its source
TASK_NAMES = tuple(_FULL)


def get_task(name: str, variant: Literal["full", "demo"] = "full") -> Task:
    """The preset `name` at the papers' width or the small demo width. Raises ConfigError for an unknown name."""
    if name not in _FULL:
        raise ConfigError(f"unknown task '{name}': choose one of {', '.join(TASK_NAMES)}")
    return _FULL[name] if variant == "full" else _demo(_FULL[name])


def as_released(task: Task) -> Task:
    """`task` with the voice clips that the papers' released code computes, for weights that were trained on them."""

    def released(m: Modality) -> Modality:
        return replace(m, top_db=RELEASED_TOP_DB, pad=RELEASED_PAD) if m.name == "voice" else m

    return replace(task, modalities=tuple(map(released, task.modalities)))


def split_steps(task: Task, steps: int) -> Task:
    """`task` with each single-clip window cut into `steps` equal consecutive clips (pain with S = 4).

    Raises ConfigError where a window does not divide into that many clips.
    """

    def cut(m: Modality) -> Modality:
        shape = m.shape
        if m.name == "eda":
            if shape[-1] % steps:
                raise ConfigError(f"{shape[-1]} EDA samples do not divide into {steps} steps; choose a divisor")
            shape = (1, shape[-1] // steps)
        return replace(m, shape=shape, span=m.span / steps, stride=m.span / steps)

    if task.steps != 1 or steps < 1:
        raise ConfigError(f"task '{task.name}' already has {task.steps} steps; only a one-step task can be split")
    return replace(task, steps=steps, modalities=tuple(cut(m) for m in task.modalities)) if steps > 1 else task
