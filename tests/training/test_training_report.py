"""The HTML report of an evaluation: complete, self-contained, with n and intervals, readable in grey."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from jmt_edge.calibration.report import _bars
from jmt_edge.training import evaluation_report, plots
from jmt_edge.training.evaluation import disturbances
from jmt_edge.training.recipes import load_recipe
from jmt_edge.training.scores import Predictions, score
from jmt_edge.training.streams import simulated_cohort
from jmt_edge.training.trial_figure import facial_frames, shown_trial, trial_attention

TASK = load_recipe("biovid-jmt-s4", variant="demo").resolve()


def predictions(names: tuple[str, ...] = TASK.names, people: int = 6, windows: int = 8, steps: int = 4) -> Predictions:
    g = np.random.default_rng(0)
    count = people * windows
    who = np.array([f"p{i // windows}" for i in range(count)])
    y = (np.arange(count) % 4 == 0).astype(np.float32)[:, None].repeat(steps, 1)  # a quarter in pain
    attention = g.dirichlet(np.ones(len(names)), (count, steps)).astype(np.float32)
    return Predictions(
        names, who, np.array([f"t{i}" for i in range(count)]), np.full(count, 5.5), {"pain": y},
        {"pain": (y - 0.5 + g.normal(0, 0.6, y.shape)).astype(np.float32)},
        np.ones((count, steps, len(names)), np.float32), attention,
    )  # fmt: skip


def test_the_report_holds_every_table_and_figure_and_nothing_from_outside(tmp_path: Path) -> None:
    p = predictions()
    scores = score(p, draws=50)
    table = {"clean": scores} | dict.fromkeys(disturbances(TASK), scores)
    plots.all_plots(tmp_path, p, table, TASK)
    path = evaluation_report.write_html(
        tmp_path, title="Evaluation of <run>", about={"data": "a & b"}, clean=p, table=table,
        sections={"Notes": ["one <two>"], "Nothing": []}, figures=plots.NAMES,
    )  # fmt: skip
    page = path.read_text()
    assert "Evaluation of &lt;run&gt;" in page and "a &amp; b" in page and "one &lt;two&gt;" in page
    assert "Nothing" not in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    drawn = {f.stem for f in tmp_path.glob("*.png")}
    assert {"confusion", "roc", "reliability", "subjects", "over_time", "attention", "robustness"} == drawn
    assert len(sources) == len(drawn) and all(s.startswith("data:image/png;base64,") for s in sources)
    assert "http" not in page and "url(" not in page
    assert all(f">{name}<" in page for name in table) and all(f">{who}<" in page for who in set(p.subject.tolist()))
    low, high = scores.interval["accuracy"]
    assert f"{scores.pooled['accuracy']:.3f} [{low:.3f}, {high:.3f}]" in page


def test_n_and_the_smallest_possible_change_are_printed() -> None:
    p = predictions()
    text = evaluation_report.smallest_change(p)
    # 48 windows, 12 of them in pain: 1/48, and 1/24 of the recall's half
    assert text == (
        "n = 48 windows of 6 people; one window changes the accuracy by 0.021 and the balanced accuracy by up to 0.042"
    )
    y, right = p.labels["pain"][:, -1], np.zeros(48, bool)
    one = np.flatnonzero(y == 1)[0]
    recalls = [right[y == c].mean() for c in (0, 1)]
    right[one] = True
    assert np.mean([right[y == c].mean() for c in (0, 1)]) - np.mean(recalls) == pytest.approx(1 / 24)


def test_modalities_differ_without_colour() -> None:
    def lightness(colour: str) -> float:
        r, g, b = mpl.colors.to_rgb(colour)
        return 0.299 * r + 0.587 * g + 0.114 * b

    seen = sorted(lightness(plots.COLOURS[m]) for m in ("face", "voice", "eda"))
    assert min(np.diff(seen)) > 0.12
    assert len({plots.LINES[m] for m in plots.COLOURS}) == len(plots.COLOURS)


def test_one_person_has_no_interval_and_still_a_report(tmp_path: Path) -> None:
    p = predictions(people=1)
    table = {"clean": score(p, draws=50)}
    plots.all_plots(tmp_path, p, table, TASK)
    assert (tmp_path / "roc.png").is_file() and "of 1 person;" in evaluation_report.smallest_change(p)


def test_the_trial_whose_weights_change_most_is_shown(tmp_path: Path) -> None:
    p = predictions()
    p.attention[:] = 0.5
    p.attention[3, :, 0] = (0.1, 0.9, 0.1, 0.9)  # not in pain
    p.attention[8, :, 0] = (0.4, 0.6, 0.5, 0.5)
    p.attention[4, :, 0] = (0.2, 0.8, 0.5, 0.5)
    p.present[4, 1, 0] = 0  # a step is absent
    assert shown_trial(p) == 8


def test_the_figure_of_a_trial_is_a_vector_with_the_faces_of_its_steps(tmp_path: Path) -> None:
    cohort = simulated_cohort(load_recipe("demo-pain").resolve(), subjects=2, windows=2)
    trial = cohort.trials[0]
    end = trial.ends[0]
    times = [end - 1.375 * k for k in (3, 2, 1, 0)]
    faces = facial_frames(trial, TASK, times)
    assert all(f is not None and f.shape == (112, 112, 3) for f in faces)
    assert any((faces[0] != f).any() for f in faces[1:])  # type: ignore[union-attr]
    p = predictions()
    p.trial = np.array([trial.id] * len(p.end))
    p.end[:] = end
    for shown, images in ((True, 4), (False, 0)):
        trial_attention(tmp_path, p, TASK, cohort.trials, faces=shown)
        svg = (tmp_path / "trial_attention.svg").read_text()
        assert svg.count("<image") == images and "1.4 s apart" in svg and f"{end:.2f}" in svg
        assert (tmp_path / "trial_attention.pdf").read_bytes().startswith(b"%PDF")


def test_a_layer_without_a_change_has_no_bar_of_0_db() -> None:
    axes = Figure().subplots()
    _bars(axes, [30.0, None, 0.0])
    assert [(round(b.get_x() + b.get_width() / 2), b.get_height()) for b in axes.patches] == [(0, 30.0), (2, 0.0)]
    (mark,) = axes.get_lines()
    assert list(mark.get_xdata()) == [1] and mark.get_label() == "no change of the outputs"
    _bars(Figure().subplots(), [None, None])
