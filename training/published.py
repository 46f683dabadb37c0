"""The papers' tables, row by row: which recipe trains a row's system, or why none does; printed beside a reproduction.

JMT is arXiv 2403.10488 (tables of version 3), RJCMA arXiv 2403.13659 (version 4). A row is printed only beside the
recipe that trains its modalities and fusion, with what differs: between the papers' protocol and ours, between the row
and the recipe as shipped, and between that and the recipe that was used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .recipes import Recipe, from_dict, load_recipe

R2D1, I3D, R3D, RESNET = "r2plus1d_18", "i3d", "r3d_18", "resnet18_audio"
FOLDS = "the authors' own fold, whose videos are not published"

# measure -> what it is, and what differs from a score of ours
MEASURES = {
    "biovid": (
        "BioVid BL1 vs PA4, 5 folds, accuracy",
        "the paper's folds split samples, so people are on both sides, and the best test epoch is reported",
    ),
    "loso": ("BioVid BL1 vs PA4, LOSO, accuracy", "another network"),
    "test": (
        "Affwild2 test set, CCC of valence / arousal / mean",
        "its labels are not public, so your score is of other videos",
    ),
    "validation": (
        "Affwild2 official validation set, CCC of valence / arousal / mean",
        "the papers score every step with later ones in view; JMT also smooths by centred means",
    ),
    "fold": ("Affwild2, one of the authors' folds, CCC of valence / arousal / mean", "another split"),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row. values: as printed, None for what the table (or our record of it) lacks; affect has three, pain one.

    recipe: the one that trains the system, "" with the reason in `context` where there is none. backbones, fusion and
    intra: the row's system in the terms of a recipe; differs: what the recipe does otherwise.
    """

    paper: str
    table: int
    system: str
    measure: str
    values: tuple[float | None, ...]
    recipe: str = ""
    backbones: tuple[str, ...] = ()
    fusion: str = ""
    intra: str = ""
    differs: str = ""
    context: str = ""

    def cells(self) -> str:
        return " / ".join("–" if v is None else f"{v:.3f}" for v in self.values)


_BOTH = (R2D1, I3D, RESNET)
_VISUAL = "our record of the table does not name the row's visual backbones; the recipe has R(2+1)D-18"
_RJCMA = "clips every 32 frames of R(2+1)D-18 and ResNet-18, not frames of IR-50 and VGGish; no text without --set text"
_JCA = "the row has the authors' own backbones and training; the recipe is trained as the JMT paper's fusions"

ROWS = (
    Row("JMT", 2, "EDA (1-D CNN)", "biovid", (0.772,), "biovid-eda", ("eda_cnn1d",), "unimodal"),
    Row("JMT", 2, "face (R3D-18)", "biovid", (0.729,), "biovid-face", (R3D,), "unimodal"),
    Row("JMT", 2, "concatenation", "biovid", (0.835,), "biovid-concat", (R3D, "eda_cnn1d"), "concat"),
    Row("JMT", 2, "vanilla transformer", "biovid", (0.878,), "biovid-vanilla", (R3D, "eda_cnn1d"), "vanilla"),
    Row("JMT", 2, "JMT", "biovid", (0.891,), "biovid-jmt", (R3D, "eda_cnn1d"), "jmt"),
    Row("JMT", 3, "JMT", "validation", (0.717, 0.614, 0.666), "affwild2-jmt", (R2D1, RESNET), "jmt", differs=_VISUAL),
    *(
        Row("JMT", 3, f"JMT, fold {i}", "fold", (None, None, mean), context=FOLDS)
        for i, mean in enumerate((0.694, 0.682, 0.647, 0.713, 0.657), 1)
    ),
    Row("JMT", 3, "JMT, dual-model ensembling", "validation", (0.769, 0.692, 0.731), "affwild2-ensemble",
        (R2D1, RESNET), "jmt", differs=_VISUAL),
    Row("JMT", 4, "challenge baseline", "test", (0.180, 0.170, 0.175), context="not a system of the papers"),
    Row("JMT", 4, "JCA", "test", (0.374, 0.363, 0.369), "affwild2-jca", (I3D, RESNET), "jca",
        differs="the row has I3D, the recipe R(2+1)D-18 (--set backbone.face=i3d)"),
    Row("JMT", 4, "JMT (R(2+1)D-18 + I3D by FC, ResNet-18)", "test", (0.472, 0.443, 0.458), "affwild2-jmt-intra-fc",
        _BOTH, "jmt", "fc"),
    Row("JMT", 5, "R(2+1)D-18", "test", (0.194, 0.310, 0.252), "affwild2-face", (R2D1,), "unimodal"),
    Row("JMT", 5, "ResNet-18", "test", (0.273, 0.246, 0.260), "affwild2-voice", (RESNET,), "unimodal"),
    Row("JMT", 5, "concatenation (R(2+1)D-18, ResNet-18)", "test", (0.320, 0.327, 0.323), "affwild2-concat",
        (R2D1, RESNET), "concat"),
    Row("JMT", 5, "vanilla transformer (R(2+1)D-18, ResNet-18)", "test", (0.376, 0.334, 0.355), "affwild2-vanilla",
        (R2D1, RESNET), "vanilla"),
    Row("JMT", 5, "JMT (R(2+1)D-18, ResNet-18)", "test", (0.366, 0.379, 0.373), "affwild2-jmt", (R2D1, RESNET), "jmt"),
    Row("JMT", 6, "I3D", "test", (0.336, 0.422, 0.379), "affwild2-face-i3d", (I3D,), "unimodal"),
    Row("JMT", 6, "concatenation (I3D, ResNet-18)", "test", (None, None, 0.200), "affwild2-concat-i3d", (I3D, RESNET),
        "concat", differs="the row contradicts itself: the mean of its valence and arousal is 0.420"),
    Row("JMT", 6, "vanilla transformer (I3D, ResNet-18)", "test", (0.432, 0.410, 0.421), "affwild2-vanilla-i3d",
        (I3D, RESNET), "vanilla"),
    Row("JMT", 6, "JMT (I3D, ResNet-18)", "test", (0.425, 0.450, 0.438), "affwild2-jmt-i3d", (I3D, RESNET), "jmt"),
    Row("JMT", 7, "JMT (R(2+1)D-18 + I3D by FC, ResNet-18)", "test", (0.472, 0.443, 0.458), "affwild2-jmt-intra-fc",
        _BOTH, "jmt", "fc"),
    Row("JMT", 7, "JMT (R(2+1)D-18 + I3D by TR, ResNet-18)", "test", (0.458, 0.445, 0.452), "affwild2-jmt-intra-tr",
        _BOTH, "jmt", "tr"),
    Row("RJCMA", 1, "RJCMA, fold 0 (official)", "validation", (0.455, 0.652, None), "affwild2-rjcma", (), "rjcma",
        differs=_RJCMA),
    *(
        Row("RJCMA", 1, f"RJCMA, fold {i}", "fold", (valence, arousal, None), context=FOLDS)
        for i, (valence, arousal) in enumerate(
            ((0.585, 0.674), (0.467, 0.631), (0.536, 0.647), (0.432, 0.629), (0.463, 0.615)), 1
        )
    ),
    Row("RJCMA", 2, "JCA", "validation", (0.663, 0.584, None), "affwild2-jca", (), "jca", differs=_JCA),
    Row("RJCMA", 2, "JCA", "test", (0.374, 0.363, None), "affwild2-jca", (), "jca", differs=_JCA),
    Row("RJCMA", 2, "RJCA, as in its own paper", "validation", (0.703, 0.623, None),
        context="quoted by the table; its LSTMs are not built"),
    Row("RJCMA", 2, "RJCA, as in its own paper", "test", (0.467, 0.405, None),
        context="quoted by the table; its LSTMs are not built"),
    Row("RJCMA", 2, "RJCA in RJCMA's set-up", "validation", (0.443, 0.639, None), "affwild2-rjca", (), "rjca",
        differs=_RJCMA),
    Row("RJCMA", 2, "RJCA in RJCMA's set-up", "test", (0.537, 0.576, None), "affwild2-rjca", (), "rjca",
        differs=_RJCMA),
    Row("RJCMA", 2, "leader-follower attention", "validation", (0.441, 0.645, None), context="not built"),
    Row("RJCMA", 2, "leader-follower attention", "test", (0.552, 0.629, None), context="not built"),
    Row("RJCMA", 2, "RJCMA", "validation", (0.455, 0.652, None), "affwild2-rjcma", (), "rjcma", differs=_RJCMA),
    Row("RJCMA", 2, "RJCMA", "test", (0.542, 0.619, None), "affwild2-rjcma", (), "rjcma", differs=_RJCMA),
    *(
        Row("RJCMA", 3, f"RJCMA, l = {l}", "fold", (None, None, mean),
            context=f"{FOLDS}; affwild2-rjcma --set recursions={l} trains the system")
        for l, mean in enumerate((0.607, 0.618, 0.629, 0.615), 1)
    ),
    Row("RJCMA", 4, "Netease Fuxi", "test", (None, None, 0.6721), context="another team's system"),
    Row("RJCMA", 4, "RJCMA", "test", (0.5418, 0.6196, 0.5807), "affwild2-rjcma", (), "rjcma", differs=_RJCMA),
    Row("RJCMA", 4, "JMT", "test", (None, None, 0.4434),
        context="the challenge's entry of JMT, whose paper prints 0.458"),
    Row("RJCMA", 4, "challenge baseline", "test", (0.211, 0.191, None), context="not a system of the papers"),
    Row("other work", 0, "EDA CNN (Thiam 2019)", "loso", (0.8457,), context="another network"),
    Row("other work", 0, "several signals (Phan 2023)", "loso", (0.848,), context="another network"),
    Row("other work", 0, "EDA, PainAttnNet", "loso", (0.8534,), context="another network"),
    Row("other work", 0, "EDA and ECG, CrossMod", "loso", (0.8752,), context="another network"),
)  # fmt: skip

# Recipes that no row has, but whose modalities, backbones and fusion are another's: what differs is then named.
VARIANTS = {
    "affwild2-jmt-concat": "affwild2-jmt", "affwild2-jmt-key": "affwild2-jmt", "affwild2-jmt-sigmoid": "affwild2-jmt",
    "biovid-jmt-key": "biovid-jmt", "biovid-jmt-s4": "biovid-jmt", "biovid-jmt-v1": "biovid-jmt",
}  # fmt: skip
NOTE = "published, on the papers' data and under their protocol, not on yours"
_NAMES = ("name", "title", "source", "notes", "row", "layout", "protocol")  # say nothing about the system
_DEMO = ("stages", "backbone", "eda_moments", "augment", "masking", "weights", "variant")  # follow from the variant
_SHOWN = 4  # changed settings that a line names


def rows_of(recipe: Mapping[str, Any]) -> tuple[list[Row], str]:
    """The rows of a used recipe's system (`Recipe.to_dict`), and what it changed of the shipped recipe, "" for nothing;
    no rows where modalities or fusion are not those of the rows.
    """
    name = str(recipe.get("name", ""))
    shipped = VARIANTS.get(name, name)
    rows = [row for row in ROWS if row.recipe == shipped and shipped]
    if not rows:
        return [], ""
    base = load_recipe(shipped)
    try:
        used = from_dict(dict(recipe))
    except ConfigError:  # of a bundle that another version exported: what it trained cannot be compared
        return [], ""
    if any(_system(used)[key] != value for key, value in _system(base).items()):
        return [], ""
    return rows, _changes(used, base)


def _system(recipe: Recipe) -> dict[str, Any]:
    """What must be equal for a row to be printed."""
    task = recipe.resolve()
    return {
        "modalities": task.names, "outputs": task.outputs, "fusion": recipe.fusion, "intra": recipe.intra,
        "second": recipe.second, "audio_gru": recipe.audio_gru, "ensemble": recipe.ensemble,
    }  # fmt: skip


def _changes(used: Recipe, base: Recipe) -> str:
    """The settings of `used` that are not the shipped recipe's: `steps = 4, not 16`."""
    changes = []
    leave_out = set(_NAMES)
    if used.variant != base.variant:
        changes.append(f"the {used.variant} width, trained from scratch")
        leave_out |= set(_DEMO)
    if used.backbones() != base.backbones():
        changes.append(f"backbones {', '.join(used.backbones())}, not {', '.join(base.backbones())}")
        leave_out.add("backbone")
    mine, theirs = (dict(_flat({**r.to_dict(), "steps": r.resolve().steps}, "")) for r in (used, base))
    for key in dict.fromkeys((*mine, *theirs)):
        if key.partition(".")[0] not in leave_out and mine.get(key) != theirs.get(key):
            changes.append(f"{key} = {mine.get(key, 'unset')}, not {theirs.get(key, 'unset')}")
    more = [f"{len(changes) - _SHOWN} more settings"] if len(changes) > _SHOWN else []
    return "; ".join(changes[:_SHOWN] + more)


def _flat(data: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


def row_text(row: Row) -> str:
    """The row, its numbers, and what its recipe does otherwise."""
    return f"{row.paper} Table {row.table}, {row.system}: {row.cells()}" + (f"; {row.differs}" if row.differs else "")


def published_lines(recipe: Mapping[str, Any]) -> list[str]:
    """Lines to print below a table, for the recipe that was used; none where no row has its system."""
    rows, changes = rows_of(recipe)
    if not rows:
        return []
    lines = [f"{NOTE}:"]
    for measure in dict.fromkeys(row.measure for row in rows):
        what, differs = MEASURES[measure]
        lines.append(f"  {what} ({differs})")
        lines += [f"    {row_text(row)}" for row in rows if row.measure == measure]
    return [*lines, f"  settings other than those of {rows[0].recipe}: {changes}"] if changes else lines
