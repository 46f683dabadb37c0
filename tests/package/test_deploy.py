"""What `deploy/` holds besides the systemd unit: rules of udev, containers, Prometheus' rules and Grafana's board.

Each is read by the program it is for, where that is here, and compared with what the product really is.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TARGETS = ("x86-64", "jetpack6", "jetpack7")


# ---- containers


def instructions(target: str) -> list[tuple[str, str]]:
    """(instruction, its text) of a Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "containers" / f"{target}.Dockerfile").read_text(), flags=re.M)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


@pytest.mark.parametrize("target", TARGETS)
def test_a_container_runs_as_nobody_from_pinned_bases_with_extras_that_exist(target: str) -> None:
    steps = instructions(target)
    names = [name for name, _ in steps]
    known = {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert set(names) <= known and names[0] == "FROM"
    bases = [text.split()[0] for name, text in steps if name == "FROM"]
    assert all(re.search(r":(?!latest)[\w.-]+$", base) for base in bases), bases
    users = [text for name, text in steps if name == "USER"]
    assert users == ["10001"] and names.index("USER") < names.index("CMD")
    assert f"useradd --system --uid {users[0]}" in " ".join(text for _, text in steps)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"/src\[([\w,]+)\]", " ".join(text for _, text in steps))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for name, text in steps:
        if name == "RUN":
            assert not text.startswith("["), text
            assert subprocess.run(["bash", "-n", "-c", text], capture_output=True).returncode == 0, text
            assert "apt-get install" not in text or (
                "--no-install-recommends" in text and "rm -rf /var/lib/apt/lists/*" in text
            )
            for constraints in re.findall(r"/src/(deploy/\S+)", text):
                assert (ROOT / constraints).is_file()
        if name in ("CMD", "ENTRYPOINT") or (name == "HEALTHCHECK" and "CMD" in text):
            assert isinstance(json.loads(text[text.index("[") :]), list)


@pytest.mark.parametrize("target", TARGETS)
def test_compose_files_take_rights_away(target: str) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    text = (DEPLOY / "containers" / f"compose.{target}.yml").read_text()
    unit: dict[str, Any] = yaml.safe_load(text)["services"]["unit"]
    assert unit["read_only"] is True and unit["user"] == "10001" and unit["cap_drop"] == ["ALL"]
    assert unit["security_opt"] == ["no-new-privileges:true"] and "privileged" not in unit
    built = (DEPLOY / "containers" / unit["build"]["context"]).resolve()
    assert built == ROOT and (built / unit["build"]["dockerfile"]).is_file()
    assert (unit.get("runtime") == "nvidia") == (target != "x86-64")
    assert any(":/dev/video0" in device for device in unit["devices"])
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        done = subprocess.run(
            [docker, "compose", "-f", str(DEPLOY / "containers" / f"compose.{target}.yml"), "config", "--quiet"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_what_a_container_is_built_from_is_what_a_wheel_is_built_from() -> None:
    """A folder that .dockerignore leaves out would be missing from the package in the image."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.split("/")[0] for path in setuptools["package-dir"].values()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert folders | {"pyproject.toml", "README.md", "LICENSE", "NOTICE"} <= kept
    assert all((ROOT / name).exists() for name in kept)


def test_the_context_of_a_build_makes_the_same_wheel(tmp_path: Path) -> None:
    """What .dockerignore lets through is enough for the image's `pip install`."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in kept:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / "src" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tmp_path / "src").mkdir(exist_ok=True)
            shutil.copyfile(source, tmp_path / "src" / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(tmp_path / "src")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"jmt_edge/beds/static/station.html", "jmt_edge/live/page/static/index.html", "jmt_edge/kernels/__init__.py",
            "jmt_edge/engine/bundles/pain-demo.jmt/manifest.json"} <= names  # fmt: skip


# ---- udev


def rules() -> list[list[tuple[str, str, str]]]:
    """(key, operator, value) of each rule."""
    text = (DEPLOY / "udev" / "70-jmt-edge.rules").read_text()
    found = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            parts = re.findall(r'\s*([A-Z]+(?:\{[^}]+\})?|SYMLINK|TAG)\s*(==|!=|\+=|=)\s*"([^"]*)"\s*(?:,|$)', line)
            assert ", ".join(f'{k}{op}"{v}"' for k, op, v in parts) == line.strip(), line
            found.append(parts)
    return found


def test_rules_of_udev_are_well_formed() -> None:
    matches = {"SUBSYSTEM", "SUBSYSTEMS", "ACTION", "DRIVERS", "ATTR", "ATTRS", "ENV"}
    assigns = {"GOTO", "LABEL", "GROUP", "MODE", "TAG", "SYMLINK", "RUN", "ENV"}
    labels, wanted = set(), set()
    for rule in rules():
        for key, operator, value in rule:
            assert key.split("{")[0] in (matches if operator in ("==", "!=") else assigns), (key, operator)
            if key == "LABEL":
                labels.add(value)
            if key == "GOTO":
                wanted.add(value)
            if key.startswith(("ATTRS{id", "ATTR{id")):
                assert re.fullmatch("[0-9a-f]{4}", value), value
    assert wanted == labels
    verify = subprocess.run(["udevadm", "verify", "--help"], capture_output=True) if shutil.which("udevadm") else None
    if verify is not None and verify.returncode == 0:  # systemd 254 and newer
        done = subprocess.run(
            ["udevadm", "verify", "--no-style", str(DEPLOY / "udev" / "70-jmt-edge.rules")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


# ---- Prometheus and Grafana


def product_metrics() -> set[str]:
    """Names that a unit's page and a station really serve."""
    from jmt_edge.beds.ward import Ward

    found = set()
    ward = Ward("w")
    page = pytest.importorskip("jmt_edge.beds.page", reason="the page's packages are not installed")
    found |= set(re.findall(r"^# TYPE (\S+)", page.prometheus(ward.snapshot(0.0)), re.M))
    source = (ROOT / "jmt_edge" / "live" / "page" / "metrics.py").read_text()
    return found | {f"jmt_edge_{name}" for name in re.findall(r'metric\(\s*"(\w+)"', source)}


def expressions() -> list[str]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    groups = yaml.safe_load((DEPLOY / "prometheus" / "jmt-edge.rules.yml").read_text())["groups"]
    board = json.loads((DEPLOY / "prometheus" / "grafana-beds.json").read_text())
    return [rule["expr"] for group in groups for rule in group["rules"]] + [
        target["expr"] for panel in board["panels"] for target in panel.get("targets", [])
    ]


def test_rules_and_board_ask_for_metrics_that_exist() -> None:
    known = product_metrics()
    asked = {name for text in expressions() for name in re.findall(r"jmt_edge_\w+", text)}
    assert asked <= known, asked - known
    assert len(asked) > 8


def test_the_board_is_one_that_grafana_imports() -> None:
    """By the fields of its dashboard model: ids differ, panels lie apart on 24 columns, the data source is chosen."""
    board = json.loads((DEPLOY / "prometheus" / "grafana-beds.json").read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(board)
    assert "not for clinical use" in board["title"]
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_promtool_accepts_the_rules_and_their_tests() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine (apt install prometheus)")
    folder = DEPLOY / "prometheus"
    for command in (["check", "rules", "jmt-edge.rules.yml"], ["test", "rules", "jmt-edge.test.yml"],
                    ["check", "config", "--syntax-only", "prometheus.yml"]):  # fmt: skip
        done = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
