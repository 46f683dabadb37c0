"""Every row of the papers' tables has one recipe or a reason, and is printed beside no other system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jmt_edge.engine.bundle import Bundle
from jmt_edge.markdown import table
from jmt_edge.tasks import get_task
from jmt_edge.training.evaluation import _as_bundled
from jmt_edge.training.published import MEASURES, ROWS, VARIANTS, Row, published_lines, row_text, rows_of
from jmt_edge.training.recipes import Recipe, load_recipe, names

PAPERS = Path(__file__).parents[2] / "docs" / "explanation" / "papers.md"
MAPPED = [row for row in ROWS if row.recipe]
OURS = {"affwild2-intra-fc", "affwild2-intra-tr", "painmonit-eda", "trimodal-jmt"}  # systems of no table


def one(paper: str, table: int, start: str, measure: str = "") -> Row:
    (row,) = (
        r for r in ROWS
        if (r.paper, r.table) == (paper, table) and r.system.startswith(start) and measure in ("", r.measure)
    )  # fmt: skip
    return row


def printed(recipe: Recipe) -> str:
    return "\n".join(published_lines(recipe.to_dict()))


def test_every_row_has_one_recipe_or_a_reason() -> None:
    tables = {(row.paper, row.table) for row in ROWS}
    assert tables == {*(("JMT", n) for n in range(2, 8)), *(("RJCMA", n) for n in range(1, 5)), ("other work", 0)}
    assert len({(r.paper, r.table, r.system, r.measure) for r in ROWS}) == len(ROWS)
    for row in ROWS:
        assert bool(row.recipe) != bool(row.context), row
        assert len(row.values) == (1 if row.measure in ("biovid", "loso") else 3)
        assert any(v is not None for v in row.values) and MEASURES[row.measure]
    assert {row.recipe for row in MAPPED} | set(VARIANTS) | OURS == {n for n in names() if not n.startswith("demo")}


@pytest.mark.parametrize("row", MAPPED, ids=lambda row: f"{row.paper}-{row.table}-{row.system}-{row.measure}")
def test_the_recipe_trains_the_rows_system(row: Row) -> None:
    recipe = load_recipe(row.recipe)
    assert (recipe.fusion, recipe.intra) == (row.fusion, row.intra)
    if recipe.backbones() != row.backbones:
        assert "R(2+1)D-18" in row.differs or "backbones" in row.differs  # and the line says so
    assert (recipe.layout, recipe.resolve().outputs) == (
        ("biovid", ("pain",)) if row.measure == "biovid" else ("affwild2", ("valence", "arousal"))
    )
    lines = published_lines(recipe.to_dict())
    at = lines.index(f"    {row_text(row)}")
    assert row_text(row).startswith(f"{row.paper} Table {row.table}, {row.system}: {row.cells()}")
    assert row.differs in row_text(row)
    # the heading above it names the measure and what the protocol does otherwise
    heading = next(line for line in reversed(lines[:at]) if not line.startswith("    "))
    assert heading == "  {} ({})".format(*MEASURES[row.measure])
    assert "settings other than" not in lines[-1]  # as shipped it changed nothing


def test_the_best_row_is_never_printed_beside_the_face_alone() -> None:
    best = ("0.472", "0.458", "0.452")
    assert not any(value in printed(load_recipe(f"affwild2-intra-{how}")) for how in ("fc", "tr") for value in best)
    for row in ROWS:
        if row.cells() in (
            one("JMT", 7, "JMT (R(2+1)D-18 + I3D by FC").cells(),
            one("JMT", 7, "JMT (R(2+1)D-18 + I3D by TR").cells(),
        ):
            recipe = load_recipe(row.recipe)
            assert recipe.resolve().names == ("face", "voice") and len(recipe.backbones()) == 3
    # nor does another change of the system keep a row
    for name, change in (
        ("affwild2-jmt", {"modalities": ("face",), "fusion": "unimodal"}),
        ("affwild2-jmt", {"fusion": "vanilla"}),
        ("affwild2-jmt-intra-fc", {"intra": "tr"}),
        ("affwild2-jmt-intra-fc", {"intra": "", "second": ""}),
        ("affwild2-jmt", {"second": "i3d", "intra": "fc"}),
        ("affwild2-jmt", {"outputs": ("valence",)}),
        ("biovid-jmt", {"modalities": ("eda",), "fusion": "unimodal"}),
    ):
        assert not published_lines(replace(load_recipe(name), **change).to_dict()), (name, change)  # type: ignore[arg-type]
    assert not published_lines({}) and not published_lines({"name": "affwild2-jmt", "of": "another version"})


def test_a_bundle_has_the_rows_of_its_own_weights() -> None:
    def bundle(name: str, precision: str = "fp32") -> Any:
        recipe = load_recipe(name).to_dict()
        networks = {n: {"onnx": f"{n}.onnx", "precision": precision} for n in ("face", "voice", "fusion")}
        return Bundle(Path("x"), {"provenance": {"recipe": recipe}, "networks": networks}, get_task("affect"), "x")

    # an ensembling run is scored with a set of weights for each output; its bundle has one set
    assert "ensembling" in printed(load_recipe("affwild2-ensemble"))
    assert not published_lines(_as_bundled(bundle("affwild2-ensemble")))
    plain = published_lines(_as_bundled(bundle("affwild2-jmt")))
    assert plain == published_lines(load_recipe("affwild2-jmt").to_dict())
    quantised = published_lines(_as_bundled(bundle("affwild2-jmt", "int8")))
    assert quantised == [*plain, "  settings other than those of affwild2-jmt: precision = int8, not 32-true"]
    assert _as_bundled(Bundle(Path("x"), {"networks": {}}, get_task("affect"), "x")) == {}


def test_what_differs_is_named() -> None:
    text = printed(load_recipe("affwild2-jmt", ["steps=8", "fusion.lr=1e-4", "backbone.face=r3d_18"]))
    assert "steps = 8, not 16" in text and "stages.fusion.lr = 0.0001, not 0.0006" in text
    assert "backbones r3d_18, resnet18_audio, not r2plus1d_18, resnet18_audio" in text
    demo = printed(load_recipe("biovid-jmt", variant="demo"))
    assert (
        "settings other than those of biovid-jmt: the demo width" in demo
        and "eda_cnn1d_centred" in demo
        and "stages" not in demo
    )
    for name, of in VARIANTS.items():
        text = printed(load_recipe(name))
        assert f"settings other than those of {of}: " in text and all(
            row_text(row) in text for row in MAPPED if row.recipe == of
        )
    many = replace(load_recipe("biovid-jmt"), hop=1.0, heads=2, attention="sigmoid", head="concat", calibrated=True)
    rows, changes = rows_of(many.to_dict())
    assert len(rows) == 1 and changes.count(";") == 4 and changes.endswith("; 1 more settings")


# ---- where the papers contradict themselves (docs/explanation/papers.md) ---------------------------------------------


def test_means_are_those_of_their_columns_but_in_one_row() -> None:
    for row in ROWS:
        valence, arousal, mean = row.values if len(row.values) == 3 else (None, None, None)
        if None not in (valence, arousal, mean):
            assert (valence + arousal) / 2 == pytest.approx(mean, abs=0.00101), row  # type: ignore[operator]
    wrong = one("JMT", 6, "concatenation")
    assert wrong.values[2] == 0.200 and "0.420" in wrong.differs
    # a mean of 0.420 would be one thousandth below the vanilla transformer's
    assert one("JMT", 6, "vanilla").values[2] == 0.421


def gain(table: int) -> float:
    systems = {r.system.split(" ")[0]: r.values[-1] for r in ROWS if (r.paper, r.table) == ("JMT", table)}
    return round(float(systems["JMT"]) - float(systems["vanilla"]), 3)  # type: ignore[arg-type]


def test_the_gains_of_the_joint_branch() -> None:
    text = " ".join(PAPERS.read_text().split())
    assert (gain(5), gain(6), gain(2)) == (0.018, 0.017, 0.013)
    assert "1.8 points (R(2+1)D-18), 1.7 (I3D) and 1.3 (BioVid)" in text
    over_concat = one("JMT", 2, "JMT").values[0] - one("JMT", 2, "concatenation").values[0]  # type: ignore[operator]
    assert round(over_concat, 3) == 0.056 and "5.6" in text
    # valence alone falls
    falls = [one("JMT", t, "JMT (").values[0] - one("JMT", t, "vanilla").values[0] for t in (5, 6)]  # type: ignore[operator]
    assert [round(f, 3) for f in falls] == [-0.010, -0.007] and "−0.010 and −0.007" in text
    best, entry = one("JMT", 4, "JMT").values[2], one("RJCMA", 4, "JMT").values[2]
    assert (best, entry) == (0.458, 0.4434) and "0.4434" in text and "0.458" in text


def test_the_headline_is_the_best_fold() -> None:
    text = " ".join(PAPERS.read_text().split())
    folds = {r.system: r.values for r in ROWS if (r.paper, r.table) == ("RJCMA", 1)}
    best = max(folds, key=lambda f: sum(v for v in folds[f] if v is not None))
    assert (len(folds), best, folds[best][:2]) == (6, "RJCMA, fold 1", (0.585, 0.674))
    official = one("RJCMA", 1, "RJCMA, fold 0")
    assert official.values == one("RJCMA", 2, "RJCMA", "validation").values == (0.455, 0.652, None)
    assert "0.585 / 0.674 is fold 1" in text and "fold 0, 0.455 / 0.652" in text


def test_the_page_has_every_row() -> None:
    text = PAPERS.read_text()
    cells = [
        [row.paper, str(row.table or ""), row.system, row.measure, row.cells(),
         f"`{row.recipe}`" if row.recipe else f"context only: {row.context}"]
        for row in ROWS
    ]  # fmt: skip
    for line in table(["paper", "table", "row", "measure", "printed", "recipe"], cells):
        assert line in text, line
