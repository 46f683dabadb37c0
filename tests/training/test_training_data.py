"""Readers, splits and windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import training_tools as tools
from hypothesis import given
from hypothesis import strategies as st

from jmt_edge.capture.simulated.person import BIOVID_NON_REACTIVE
from jmt_edge.errors import DataError
from jmt_edge.tasks import get_task, split_steps
from jmt_edge.training import splits
from jmt_edge.training.data import cut_windows, describe, re_paired
from jmt_edge.training.readers import open_cohort, read_va


def test_biovid_as_it_is(tmp_path: Path) -> None:
    cohort = open_cohort(tools.write_biovid(tmp_path, 3, 2, video=False))
    windows = cut_windows(cohort, get_task("pain"))
    assert (len(cohort.trials), len(cohort.subjects), len(windows)) == (12, 3, 12)
    assert windows.labels["pain"].mean() == 0.5
    assert (windows.rows["face"] == -1).all()
    assert cohort.problems.absent["face file"] == 12
    assert "12 absent: face file" in "\n".join(describe(cohort, windows))
    assert set(cohort.numbers.values()) == {1, 2, 3}


def test_biovid_other_places_and_no_list(tmp_path: Path) -> None:
    tools.write_biovid(tmp_path, 2, 2, video=False, kinds=("BL1", "PA2", "PA4"))
    listed = open_cohort(tmp_path, classes=("BL1", "PA2"))
    (tmp_path / "PartA" / "starting_point" / "samples.csv").rename(tmp_path / "PartA" / "samples.csv")
    moved = open_cohort(tmp_path / "PartA", classes=("BL1", "PA2"))
    (tmp_path / "PartA" / "samples.csv").unlink()
    unlisted = open_cohort(tmp_path, classes=("BL1", "PA2"))
    names = [sorted(r.id for r in c.trials) for c in (listed, moved, unlisted)]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == 8


def test_affwild2_tolerates_gaps_sides_and_numbers(tmp_path: Path) -> None:
    cohort = open_cohort(tools.write_affwild2(tmp_path))
    assert {r.part for r in cohort.trials} == {"train", "validation"}
    side = next(r for r in cohort.trials if r.id.endswith("_left"))
    assert side.subject == side.id.removesuffix("_left")
    assert side.files["voice"].name == f"{side.subject}.wav"
    assert np.isnan(side.labels.values["valence"][7])
    windows = cut_windows(cohort, get_task("affect", "demo"))
    assert (windows.rows["face"][0, :-1] == -1).all()  # a run has just begun
    assert windows.rows["face"][0, -1] >= 0
    later = windows.rows["face"][1]
    assert later[-2] == windows.rows["face"][0, -1]  # windows share their clips


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("valence,arousal\n0.1,0.2\n0.1,1.5\n", "row 3"),
        ("valence,arousal\n0.1,oops\n", "row 2"),
        ("valence,excitement\n0.1,0.2\n", "no column 'arousal'"),
        ("valence,arousal\n0.1,0.2\n\n0.1,0.2\n", "row 3"),  # an empty line would shift the frames behind it
        ("", "no data row"),
    ],
)
def test_wrong_labels_name_file_and_row(tmp_path: Path, body: str, says: str) -> None:
    file = tmp_path / "x.txt"
    file.write_text(body)
    with pytest.raises(DataError, match=says) as error:
        read_va(file)
    assert str(file) in str(error.value)


def test_a_wrong_list_of_samples_names_its_row(tmp_path: Path) -> None:
    tools.write_biovid(tmp_path, 2, 1, video=False)
    file = tmp_path / "PartA" / "starting_point" / "samples.csv"
    text = file.read_text().splitlines()
    file.write_text("\n".join([text[0], "", text[1], text[2].replace("PA4", "PA9", 1), *text[3:]]) + "\n\n")
    with pytest.raises(DataError, match="row 4: class 'PA9'") as error:
        open_cohort(tmp_path)
    assert str(file) in str(error.value)
    assert len(open_cohort(tmp_path, skip_bad=True).trials) == 3
    file.write_bytes(b"\xff\xfe\x80" * 50)
    with pytest.raises(DataError, match="not a readable text file"):
        open_cohort(tmp_path)


def test_minus_five_is_a_number(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("\ufeff Valence , arousal \n0.5,-5.0\n-5,0.1\n0.25,-0.5\n")
    table = read_va(file)
    assert np.isnan(table["valence"]).tolist() == [True, True, False]
    assert table["arousal"][2] == -0.5


def test_skip_bad_counts_and_lists(tmp_path: Path) -> None:
    tools.write_affwild2(tmp_path, 4, 60)
    bad = next((tmp_path / "VA_Estimation_Challenge" / "Train_Set").glob("*.txt"))
    bad.write_text("valence,arousal\n7,7\n")
    with pytest.raises(DataError, match="--skip-bad"):
        open_cohort(tmp_path)
    cohort = open_cohort(tmp_path, skip_bad=True)
    assert len(cohort.trials) == 3
    assert "1 bad samples skipped" in "\n".join(cohort.problems.lines())


def test_painmonit_shapes_and_nan(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y, who = rng.normal(5, 1, (8, 100)), np.eye(2)[[0, 1] * 4], np.repeat([3, 7], 4)
    cohort = open_cohort(tools.write_painmonit(tmp_path / "a", x, y, who), rate=10)
    assert (len(cohort.trials), cohort.subjects) == (8, ["3", "7"])
    x[5, 3] = np.nan
    tools.write_painmonit(tmp_path / "b", x, y, who)
    with pytest.raises(DataError, match="row 5"):
        open_cohort(tmp_path / "b", rate=10)
    assert len(open_cohort(tmp_path / "b", rate=10, skip_bad=True).trials) == 7
    np.save(tmp_path / "b" / "y_heater.npy", np.where(np.arange(8) == 6, np.nan, np.arange(8) % 2))
    with pytest.raises(DataError, match=r"y_heater.npy row 6: nan is not a label"):
        open_cohort(tmp_path / "b", rate=10)
    with pytest.raises(DataError, match="not a PainMonit channel"):
        open_cohort(tmp_path / "a", channel="gsr")


def test_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no known layout"):
        open_cohort(tmp_path)
    with pytest.raises(DataError, match="no data folder"):
        open_cohort(tmp_path / "nowhere")


def test_steps_cut_the_trial(tmp_path: Path) -> None:
    cohort = open_cohort(tools.write_biovid(tmp_path, 1, 1, video=False))
    windows = cut_windows(cohort, split_steps(get_task("pain"), 4))
    ends = sorted(end for number, end in windows.clips["eda"] if number == 0)
    assert ends == pytest.approx([1.375, 2.75, 4.125, 5.5])
    assert windows.labels["pain"].shape == (2, 4)


# ---- splits --------------------------------------------------------------------------------------------------

people = st.lists(st.text("abcdefg123", min_size=1, max_size=4), min_size=3, max_size=30, unique=True)


@given(people, st.integers(2, 6), st.integers(0, 99))
def test_k_fold_tests_each_subject_once_and_leaks_nothing(subjects: list[str], folds: int, seed: int) -> None:
    folds = min(folds, len(subjects))
    made = splits.k_fold(subjects, folds, seed=seed)
    assert sorted(s for split in made for s in split.test) == sorted(subjects)
    for split in made:
        sides = [set(split.train), set(split.validation), set(split.test)]
        assert sum(map(len, sides)) == len(set().union(*sides)) == len(subjects)
        assert split.train


@given(people, st.integers(0, 99))
def test_loso_and_holdout(subjects: list[str], seed: int) -> None:
    assert [s.test for s in splits.loso(subjects, seed=seed)] == [(s,) for s in sorted(subjects)]
    split = splits.holdout(subjects, seed=seed)
    assert split == splits.holdout(list(reversed(subjects)), seed=seed)
    assert split.test
    assert split.train


def test_leakage_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="anna"):
        splits.Split("x", ("anna", "ben"), (), ("anna",))
    with pytest.raises(DataError, match="clip7"):
        splits.official(["clip7"], ["clip7", "clip8"])


def test_a_person_stands_on_one_side_in_whatever_spelling() -> None:
    for name, other in (("A", "a "), ("Anna  B", " anna b"), ("\uff30\uff11", "p1")):
        with pytest.raises(DataError, match="is in both train and test"):
            splits.Split("x", (name,), (), (other,))
    splits.Split("x", ("a 1",), (), ("a1",))


def test_one_person_has_one_name_and_one_id(tmp_path: Path) -> None:
    tools.write_biovid(tmp_path, 3, 1, video=False)
    file = tmp_path / "PartA" / "starting_point" / "samples.csv"
    text = file.read_text()
    first, second = open_cohort(tmp_path).subjects[:2]
    lines = text.splitlines()
    # the second subject's rows carry the first one's id
    file.write_text("\n".join([*lines[:3], *(line.replace("2", "1", 1) for line in lines[3:5]), *lines[5:]]) + "\n")
    with pytest.raises(DataError, match=f"row 4: subject_id 1 is {first} in an earlier row and {second} here"):
        open_cohort(tmp_path)
    assert second not in open_cohort(tmp_path, skip_bad=True).subjects
    # and one name two ids
    file.write_text(text.replace(f"2\t{second}\t3", f"9\t{second}\t3").replace(f"2\t{second}\t4", f"9\t{second}\t4"))
    with pytest.raises(DataError, match=f"row 5: {second} has subject_id 2 in an earlier row and 9 here"):
        open_cohort(tmp_path)
    file.write_text(text.replace(second, " ", 1))
    with pytest.raises(DataError, match="row 4: the subject has no name"):
        open_cohort(tmp_path)
    # another spelling is the same person, read from the files of that spelling
    file.write_text(text.replace(f"\t{second}\t", f"\t{second.upper()}\t", 1))
    folder = tmp_path / "PartA" / "biosignals_raw"
    (folder / second.upper()).mkdir()
    for sample in folder.glob(f"{second}/*BL1*"):
        sample.rename(folder / second.upper() / sample.name)
    cohort = open_cohort(tmp_path)
    assert (len(cohort.subjects), len(cohort.trials), len(cohort.numbers)) == (3, 6, 3)


def test_painmonit_subjects_are_written_alike(tmp_path: Path) -> None:
    x, y = np.ones((6, 100)), np.array([0, 1] * 3)
    for name, who in (("a", np.repeat([3, 7, 9], 2)), ("b", np.repeat([3.0, 7.0, 9.0], 2)),
                      ("c", np.array(["3", "3 ", "7", "7", "9", "9"]))):  # fmt: skip
        assert open_cohort(tools.write_painmonit(tmp_path / name, x, y, who), rate=10).subjects == ["3", "7", "9"]
    for who in (np.array([0, 0, 1, 1, np.nan, 2]), np.array([0, 0, 1, 1, 2.5, 2]), np.array([*"0011", " ", "2"])):
        tools.write_painmonit(tmp_path / "d", x, y, who)
        with pytest.raises(DataError, match=r"subjects.npy row 4: .* is not a subject id"):
            open_cohort(tmp_path / "d", rate=10)
    assert open_cohort(tmp_path / "a", rate=10).people == "painmonit a"


def test_67_subject_protocol(tmp_path: Path) -> None:
    from jmt_edge.training.experiment import make_splits

    cohort = open_cohort(tools.write_biovid(tmp_path, 4, 1, video=False))
    cohort.numbers = dict(zip(cohort.subjects, (1, 27, 3, 87)))
    with pytest.raises(DataError, match="at least 3"):
        make_splits(cohort, "loso67", seed=0)
    cohort.numbers = dict(zip(cohort.subjects, (1, 27, 3, 4)))
    left = {s.test[0] for s in make_splits(cohort, "loso67", seed=0)}
    assert left == {s for s, n in cohort.numbers.items() if n != 27}
    assert len(BIOVID_NON_REACTIVE) == 20


def test_re_pairing_keeps_everything_but_the_moment(tmp_path: Path) -> None:
    tools.write_biovid(tmp_path, 3, 4, video=False)
    windows = cut_windows(open_cohort(tmp_path), get_task("pain"))
    mixed = re_paired(windows, seed=1)
    assert (mixed.rows["eda"] != windows.rows["eda"]).all()
    assert mixed.rows["face"] is windows.rows["face"] and mixed.labels is windows.labels
    who, label = windows.subject, windows.labels["pain"][:, -1]
    home = {int(row): (name, y) for row, name, y in zip(windows.rows["eda"][:, 0], who, label)}
    assert [home[int(row)] for row in mixed.rows["eda"][:, 0]] == list(zip(who, label))
    assert sorted(mixed.rows["eda"][:, 0]) == sorted(windows.rows["eda"][:, 0])
    alone = replace(windows, rows={"eda": windows.rows["eda"]})
    with pytest.raises(DataError, match="needs pain labels, EDA and another modality"):
        re_paired(alone)
