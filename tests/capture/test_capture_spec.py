"""Settings in specifications: one grammar for files, devices, boards and the simulated person."""

from __future__ import annotations

from pathlib import Path

import pytest

from jmt_edge.capture import open_source
from jmt_edge.capture.spec import number, parse_settings, split_query
from jmt_edge.errors import SourceError


def test_settings() -> None:
    assert split_query("a/b?rate=4&column=x", "rate", "column") == ("a/b", {"rate": "4", "column": "x"})
    assert split_query("a/b", "rate") == ("a/b", {})
    assert parse_settings("sim:", "", ("seed",)) == {}
    assert number("s", {"rate": "4.5"}, "rate", 1, 10) == 4.5
    assert number("s", {}, "rate", 1, 10) is None


def test_a_path_that_exists_has_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "odd?rate=4"
    path.write_text("")
    assert split_query(str(path), "rate") == (str(path), {})


@pytest.mark.parametrize(
    ("modality", "spec", "says"),
    [
        ("face", "{folder}?colour=1", "unknown setting 'colour'; it takes fps"),
        ("face", "{folder}?fps", "malformed"),
        ("face", "{folder}?fps=1&fps=2", "setting twice"),
        ("face", "{folder}?fps=fast", "fps is 'fast'; give a number from 0.1 to 1000"),
        ("face", "{folder}?fps=inf", "fps is 'inf'"),
        ("face", "0?width=nan", "width is 'nan'"),
        ("voice", "0?rate=1", "rate is '1'; give a number from 4000 to 384000"),
        ("eda", "sim:seed=1.5", "give a whole number"),
        ("eda", "sim:colour=red", "unknown setting 'colour'"),
        ("eda", "sim:seed=1&seed=2", "setting twice"),
        ("eda", "grove:/dev/x?cal=1.5", "cal is '1.5'; give a whole number"),
        ("eda", "csv:/dev/x?baud=fast", "baud is 'fast'; give a whole number"),
        ("eda", "shimmer3:/dev/x?rate=inf", "rate is 'inf'; give a number"),
        ("eda", "csv:/dev/x?rate", "malformed"),
        ("eda", "csv:/dev/x?speed=1", "unknown setting 'speed'; it takes baud, rate"),
    ],
)
def test_each_fault_is_one_sentence(tmp_path: Path, modality: str, spec: str, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(modality, spec.format(folder=tmp_path))
    message = str(caught.value)
    assert says in message and spec.format(folder=tmp_path) in message
    assert "\n" not in message and ";" in message


# --- ?rotate= ---


@pytest.mark.parametrize("rotate", ["", "?rotate=auto", "?rotate=90", "?rotate=180", "?rotate=270"])
@pytest.mark.parametrize("kind", ["folder", "video"])
def test_rotate_turns_every_picture_clockwise(kind: str, rotate: str, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = (40, 160, 220)  # the upper left quarter is bright
    if kind == "folder":
        path = tmp_path / "frames"
        path.mkdir()
        for i in range(3):
            cv2.imwrite(str(path / f"{i}.png"), image)
    else:
        path = tmp_path / "a.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
        for _ in range(3):
            writer.write(image)
        writer.release()
    source = open_source("face", f"{path}{rotate}")
    assert source is not None
    source.open(0.0)
    chunk = source.read(1.0)
    assert len(chunk) == 3
    degrees = int(rotate[8:]) if rotate[8:].isdigit() else 0
    assert source.name.endswith(rotate if degrees else path.name)
    expected = np.rot90(image, -degrees // 90)
    for frame in chunk.values:
        assert frame.shape == expected.shape and frame.flags.c_contiguous
        assert np.abs(frame.astype(int) - expected)[8:-8, 8:-8].mean() < 12  # MJPEG blurs the edges
    source.close()


@pytest.mark.parametrize("spec", ["0?rotate=45", "/dev/video0?rotate=left", "{folder}?rotate=45"])
def test_other_angles_are_refused(spec: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="give 90, 180, 270 or auto"):
        open_source("face", spec.format(folder=tmp_path))


def test_rotate_leaves_a_cameras_other_settings() -> None:
    source = open_source("face", "0?width=320&rotate=180&fps=15")
    assert source is not None and source.name == "0?width=320&fps=15&rotate=180"
    assert source.status().detail["requested"] == {"width": 320, "height": 480, "fps": 15.0}
    assert source.status().detail["rotate"] == 180
