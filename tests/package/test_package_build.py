"""What a release publishes: the wheel holds the whole package, the sdist the whole project, and one gives the other."""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import Distributions

ROOMS = ("jmt_edge", "kernels", "calibration", "training")
NOT_PACKAGED = {"kernels/NOTES.md"}  # a lab notebook
NOT_IN_SDIST = (".ci/", ".github/", ".gitignore")  # they belong to the repository


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_the_wheel_holds_every_file_of_the_package(distributions: Distributions) -> None:
    wanted = {name for name in distributions.tracked if name.split("/")[0] in ROOMS} - NOT_PACKAGED
    installed = {name if name.startswith("jmt_edge/") else f"jmt_edge/{name}" for name in wanted}
    found = {name for name in _contents(distributions.wheel) if ".dist-info/" not in name}
    assert found == installed, "see [tool.setuptools] packages and package-data"


def test_the_sdist_gives_the_wheel_of_the_checkout(distributions: Distributions) -> None:
    first, second = _contents(distributions.wheel), _contents(distributions.from_sdist)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_the_sdist_holds_the_whole_project(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    missing = {n for n in distributions.tracked - found if not n.startswith(NOT_IN_SDIST)}
    assert not missing, f"add to MANIFEST.in: {sorted(missing)}"


def test_the_metadata_leads_to_the_project(distributions: Distributions) -> None:
    (name,) = [n for n in _contents(distributions.wheel) if n.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(_contents(distributions.wheel)[name])
    urls = dict(value.split(", ") for value in metadata.get_all("Project-URL"))
    assert set(urls) == {"Homepage", "Documentation", "Repository", "Changelog", "Issues"}
    assert all(url.startswith("https://github.com/jmt-edge/jmt-edge") for url in urls.values())
    assert metadata["Author"] == "jmt-edge developers"
    assert {"LICENSE", "NOTICE"} <= {Path(value).name for value in metadata.get_all("License-File")}


@pytest.mark.parametrize("sub", ["kernels", "calibration", "training"])
def test_an_installed_wheel_has_its_rooms_inside(distributions: Distributions, sub: str) -> None:
    """-S leaves site-packages out, so only the wheel can serve the import."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import jmt_edge.{sub} as m; print(m.__file__)"],
        capture_output=True, text=True, env={"PYTHONPATH": str(distributions.unpacked)}, cwd="/", check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str(distributions.unpacked / "jmt_edge" / sub / "__init__.py"), done.stderr
