"""What a release publishes: the wheel holds the whole package, the sdist the whole project, and one gives the other."""

from __future__ import annotations

import email
import email.policy
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from package_fixture import ROOT, Distributions

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


def test_the_description_reads_the_same_on_an_index(distributions: Distributions) -> None:
    """An index shows the README without the repository around it: every link is absolute, and leads to a file."""
    (name,) = [n for n in _contents(distributions.wheel) if n.endswith(".dist-info/METADATA")]
    text = str(
        email.message_from_bytes(_contents(distributions.wheel)[name], policy=email.policy.default).get_content()
    )
    inline = re.findall(r"\]\(([^)]+)\)", text)
    defined = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, re.M))
    assert all(url.startswith("https://") for url in (*inline, *defined.values()))
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.M | re.S)
    used = {" ".join(label.split()) for label in re.findall(r"\[([^\]]+)\](?![\[(:])", prose)}
    assert used == defined.keys()
    for url in defined.values():
        path = re.fullmatch(
            r"https://(?:raw\.githubusercontent|github)\.com/jmt-edge/jmt-edge/(?:blob/)?main/(.+)", url
        )
        assert path and path[1].partition("#")[0] in distributions.tracked, url


def test_no_page_installs_the_name_from_an_index(distributions: Distributions) -> None:
    """Until it is published, anybody may publish something else under it."""
    pages = [name for name in distributions.tracked if name.endswith(".md")]
    assert "README.md" in pages
    assert [name for name in pages if re.search(r"pip install jmt-edge\b", (ROOT / name).read_text())] == []
