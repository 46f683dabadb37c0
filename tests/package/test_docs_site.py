"""The documentation as a site: every page is in it, links lead somewhere, and a broken one is an error."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "scripts" / "build_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "build_docs", module)
    spec.loader.exec_module(module)
    return module


def test_links_out_of_the_documentation_lead_to_the_repository(site: Any) -> None:
    page = ROOT / "docs" / "howto" / "x.md"
    text = "[a](../../CONTRIBUTING.md#rooms) [b](many-beds.md) [c](https://e.org/x.md) [d](../images/page-dark.png)"
    made = site.for_site(page, text)
    assert made.startswith(f"[a]({site.REPOSITORY}/CONTRIBUTING.md#rooms) [b](many-beds.md)")
    assert made.endswith("[c](https://e.org/x.md) [d](../images/page-dark.png)")
    with pytest.raises(SystemExit, match=r"howto/x.md: there is no ../../none.py"):
        site.for_site(page, "[a](../../none.py)")


def test_every_page_is_in_the_contents_and_the_interface_is_described(site: Any) -> None:
    listed = set(re.findall(r"^[\w/-]+$", site.contents(), re.M))
    pages = {p.relative_to(ROOT / "docs").with_suffix("").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert listed == (pages - {"index"}) | {"reference/api"}
    text = site.interface()
    assert "### Result" in text and "### load_bundle" in text and "## jmt_edge.observer" in text


def test_every_name_of_the_interface_is_described_from_its_docstring(site: Any) -> None:
    page = (ROOT / "docs/reference/python.md").read_text()
    names = re.findall(r"^\| `jmt_edge\.[\w.]*?(\w+)(?:\(.*\))?` \|", page, re.M)
    names += re.findall(r"^\| `(\w+Error)` \|", page, re.M)
    assert {"open_source", "open_engine", "run", "Pipeline", "DataError"} <= set(names)
    text = site.interface()
    assert not [name for name in names if f"### {name}\n" not in text]
    assert text.count("### open_source\n") == 2  # of devices and files, and of recordings


def test_the_page_of_packages_says_where_each_is_imported() -> None:
    """cv2, serial and sounddevice are imported in one file each, torch nowhere in the run-time."""
    page = (ROOT / "docs/reference/packages.md").read_text()
    places: dict[str, set[str]] = {"cv2": set(), "serial": set(), "sounddevice": set(), "torch": set(), "triton": set()}
    for folder in ("jmt_edge", "kernels", "calibration", "training"):
        for file in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"^\s*(?:import|from) (\w+)", file.read_text(), re.M):
                if name in places:
                    places[name].add(file.relative_to(ROOT).as_posix())
    for name in ("cv2", "serial", "sounddevice"):
        (only,) = places[name]
        assert f"`{only}`" in page, only
    assert {place.split("/")[0] for place in places["triton"]} == {"kernels"}
    rooms = {"/".join(place.split("/")[:2]) for place in places["torch"] if place.startswith("jmt_edge/")}
    assert not rooms & {
        f"jmt_edge/{room}" for room in ("live", "capture", "clips", "media", "preprocessing", "recording")
    }
    assert list((ROOT / "benchmarks").glob("test_bench_*.py")) and "`benchmarks/test_bench_*.py`" in page


@pytest.mark.slow
def test_the_site_is_built_and_a_broken_link_is_an_error(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name, reason=f"{name} is not installed (make docs fetches it)")
    assert site.build(tmp_path / "site") == 0, capfd.readouterr().err
    assert "not for clinical use" in (tmp_path / "site" / "howto" / "many-beds.html").read_text()
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# A\n\n[b](b.md#nowhere) [c](none.md)\n")
    (docs / "b.md").write_text("# B\n")
    for name in ("reference",):
        (docs / name).mkdir()
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site, "DOCS", docs)
    monkeypatch.setattr(site, "contents", lambda: "\n```{toctree}\nb\nreference/api\n```\n")
    monkeypatch.setattr(site, "interface", lambda: "# I\n")
    with pytest.raises(SystemExit, match=r"there is no none.md"):
        site.build(tmp_path / "other")
    (docs / "index.md").write_text("# A\n\n[b](b.md#nowhere)\n")
    assert site.build(tmp_path / "other") == 1
    assert "nowhere" in capfd.readouterr().err
