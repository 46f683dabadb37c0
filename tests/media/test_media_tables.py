"""Label tables and EDA files: right numbers, or one sentence that names the row."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from jmt_edge.errors import DataError, SourceError
from jmt_edge.media.eda_files import Asked, read_eda_file
from jmt_edge.media.tables import read_table

HEADER = "time\t gsr\t ecg\t emg_trapezius\t emg_corrugator\t emg_zygomaticus"
ROWS = [f"{i * 1953.125:.0f}\t{1 + i / 100}\t0\t0\t0\t0" for i in range(50)]


def write_bio(path: Path, changes: dict[int, str], end: str = "\n") -> Path:
    """A BioVid file whose row n (from 1; 1 is the header) is replaced by `changes[n]`."""
    lines = [HEADER, *ROWS]
    for row, text in changes.items():
        lines[row - 1] = text
    path.write_text("\n".join(lines) + end)
    return path


def test_biovid_is_read_alike_in_training_and_live(tmp_path: Path) -> None:
    path = write_bio(tmp_path / "s_bio.csv", {})
    live, training = read_eda_file(path), read_eda_file(path, Asked(column="gsr"), strict=True)
    for found in (live, training):
        np.testing.assert_allclose(found.times, np.arange(50) / 512, atol=1e-6)
        np.testing.assert_allclose(found.values, 1 + np.arange(50) / 100)
        assert (found.kind, found.rows[0], found.rows[-1]) == ("biovid", 2, 51)


@pytest.mark.parametrize(
    ("row", "text", "says"),
    [
        (1, HEADER.replace("gsr", "skin"), "row 1: no column 'gsr'"),
        (10, ROWS[8].replace("1.08", "nan"), "row 10: the skin conductance or its time is not a number"),
        (10, ROWS[8].replace("1.08", ""), "row 10: the skin conductance or its time is not a number"),
        (10, "\t".join(["nan", *ROWS[8].split("\t")[1:]]), "row 10: the skin conductance or its time"),
        (10, ROWS[7], "row 10: time does not increase"),
        (10, "words", "row 10: 'words' is not numbers"),
        (10, "15625\t1.0", "row 10: '15625\t1.0' is not numbers"),
        (51, "95703\t1.", "row 51: the row was cut off"),  # of 1.49
    ],
)
def test_training_demands_every_row(tmp_path: Path, row: int, text: str, says: str) -> None:
    path = write_bio(tmp_path / "s_bio.csv", {row: text})
    with pytest.raises(SourceError) as caught:
        read_eda_file(path, Asked(column="gsr"), strict=True)
    assert says in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and ";" in str(caught.value)


def test_live_takes_what_is_right_and_counts_the_rest(tmp_path: Path) -> None:
    path = write_bio(tmp_path / "s_bio.csv", {10: ROWS[8].replace("1.08", "nan"), 20: ROWS[17], 51: "95703\t1."}, "")
    found = read_eda_file(path)
    assert (len(found.times), found.lost) == (48, 1)
    assert np.isnan(found.values).sum() == 1
    assert found.values[-1] == pytest.approx(1.48)


def test_times_begin_at_the_first_valid_one(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("t_ms,uS\n,1\n500,2\n600,3\n")
    found = read_eda_file(tmp_path / "e.csv")
    np.testing.assert_allclose(found.times, [0.0, 0.1])
    (tmp_path / "e.csv").write_text("t_ms,uS\n,1\n,2\n")
    with pytest.raises(SourceError, match="no valid number"):
        read_eda_file(tmp_path / "e.csv")


def test_a_damaged_gzip_is_one_sentence(tmp_path: Path) -> None:
    data = gzip.compress(("t,uS\n" + "\n".join(f"{i},{i}.5" for i in range(5000))).encode())
    for n, spoiled in enumerate((data[:-500], data[:100] + bytes(50) + data[150:], b"no gzip")):
        path = tmp_path / f"{n}.csv.gz"
        path.write_bytes(spoiled)
        with pytest.raises(SourceError, match=rf"{n}\.csv\.gz"):
            read_eda_file(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n\n3,4\n", "row 3: '' is not 2 numbers"),
        ("a,b\n1,2\n3\n", "row 3: '3' is not 2 numbers"),
        ("a,b\n1,2\nx,4\n", "row 3: 'x,4' is not 2 numbers"),
        ("a,c\n1,2\n", "row 1: no column 'b'"),
        ("a,b\n", "no data row"),
        ("", "no data row"),
    ],
)
def test_label_tables_name_the_row(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_table(path, ",", ("a", "b"))
    assert says in str(caught.value) and str(path) in str(caught.value)


def test_label_tables_ignore_case_spaces_and_blank_ends(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("\ufeff X , B, a \n9,1,-5\n9, 2 ,0.5\n\n \n")
    table = read_table(path, ",", ("a", "b"))
    np.testing.assert_array_equal(table["a"], [-5, 0.5])
    np.testing.assert_array_equal(table["b"], [1, 2])
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path / "nowhere.txt", ",", ("a",))
