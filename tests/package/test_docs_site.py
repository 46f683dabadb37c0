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
