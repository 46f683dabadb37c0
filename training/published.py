"""The papers' numbers, printed with those of a reproduction."""

from __future__ import annotations

NOTE = "published (sample-level folds and best test epoch in the BioVid code, so not comparable one to one)"

# Recipe -> lines. BioVid: BL1 vs PA4, 5 folds, accuracy. Affwild2: CCC of valence, arousal and their mean.
PUBLISHED: dict[str, tuple[str, ...]] = {
    "biovid-eda": ("EDA 1-D CNN accuracy 0.772 (JMT); LOSO 0.8457 (Thiam 2019), 0.8534 (PainAttnNet)",),
    "biovid-face": ("R3D-18 accuracy 0.729 (JMT)",),
    "biovid-concat": ("accuracy 0.835 (JMT)",),
    "biovid-vanilla": ("accuracy 0.878 (JMT)",),
    "biovid-jmt": ("accuracy 0.891 (JMT); other work LOSO 0.848 (Phan 2023, several signals), 0.8752 (CrossMod)",),
    "biovid-jmt-s4": ("accuracy 0.891 (JMT, S = 1 in the code)",),
    "biovid-jmt-v1": ("accuracy 0.891 (JMT v2)",),
    "affwild2-face": ("test CCC 0.194 / 0.310 / 0.252 (R(2+1)D-18, JMT)",),
    "affwild2-face-i3d": ("test CCC 0.336 / 0.422 / 0.379 (I3D, JMT)",),
    "affwild2-voice": ("test CCC 0.273 / 0.246 / 0.260 (ResNet-18, JMT)",),
    "affwild2-concat": ("test CCC 0.320 / 0.327 / 0.323 (JMT)",),
    "affwild2-vanilla": ("test CCC 0.376 / 0.334 / 0.355 (JMT); with I3D 0.432 / 0.410 / 0.421",),
    "affwild2-jmt": (
        "test CCC 0.366 / 0.379 / 0.373, with I3D 0.425 / 0.450 / 0.438; validation 0.717 / 0.614 / 0.666 (JMT)",
        "folds 1-5 mean CCC 0.694 0.682 0.647 0.713 0.657 (JMT); ABAW-6 test mean 0.4434",
    ),
    "affwild2-jmt-concat": ("test CCC 0.366 / 0.379 / 0.373 (JMT v2, head self_attention)",),
    "affwild2-ensemble": ("validation CCC 0.769 / 0.692 / 0.731 (JMT, ensembling)",),
    "affwild2-intra-fc": ("test CCC 0.472 / 0.443 / 0.458 (I3D + R(2+1)D-18, FC)",),
    "affwild2-intra-tr": ("test CCC 0.458 / 0.445 / 0.452 (I3D + R(2+1)D-18, TR)",),
    "affwild2-jca": ("test CCC 0.374 / 0.363 / 0.369 (JCA in the JMT paper)",),
    "affwild2-rjcma": (
        "validation 0.455 / 0.652, test 0.542 / 0.619 (RJCMA); ABAW-6 test mean 0.5807",
        "recursions l = 1..4 mean CCC 0.607 0.618 0.629 0.615 (fold 1)",
    ),
}  # fmt: skip


def published_lines(recipe: str) -> list[str]:
    """Lines to print below a table; none where the papers have no number for the recipe."""
    lines = PUBLISHED.get(recipe, ())
    return [f"{NOTE}:", *(f"  {line}" for line in lines)] if lines else []
