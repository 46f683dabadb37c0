"""Every need of a command is found before the command begins: no case here reaches its body."""

from __future__ import annotations

import itertools
import json
import socket
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from jmt_edge.cli import COMMANDS, _needs, cli
from jmt_edge.cli._command import Command
from jmt_edge.cli._needs import EXTRA_OF, NEEDS, needs_table
from jmt_edge.cli.live import demo_bundle

ROOT = Path(__file__).parents[2]
CommandLine = Callable[..., tuple[int, str, str]]
Case = tuple[str, str, str]  # the command line; what is missing (a module) or ""; a part of the sentence

# need -> a command line that does not meet it. {bundle}: a demo bundle, {folder}: an empty folder, {file}: a file,
# {port}: a port in use
CASES: dict[str, Case] = {
    "live `--person`: names, keys and devices that can be used, and no option that is about one person": (
        "live --person a:eda=sim: --camera 0", "", "--camera is for one person"),
    "live `--record-raw face`: `[record]` (av)": ("live --record r --record-raw eda,face", "av", "[record]"),
    "live `--page`: `[page]` (starlette, uvicorn, websockets)": ("live --page", "uvicorn", "[page]"),
    "live `--lsl`: `[lsl]` (pylsl)": ("live --lsl jmt", "pylsl", "[lsl]"),
    "live `--require-signed`: `[sign]` (cryptography)": ("live --require-signed", "cryptography", "[sign]"),
    "live `--record-raw`: `--record`": ("live --record-raw eda", "", "--record DIR"),
    "live `--resume`: `--record`": ("live --resume", "", "--record DIR"),
    "live `--record`: a folder that exists and may be written": ("live --record {file}/r", "", "not a folder"),
    "live `--log-file`: a folder that exists and may be written": (
        "live --log-file {folder}/none/l.txt", "", "does not exist"),
    "live `--page-cert`, `--page-key`: both of them": ("live --page --page-cert c.pem", "", "--page-key"),
    "live `--page-cert`, `--page-key`: `--page`": ("live --page-cert {file} --page-key {file}", "", "with --page"),
    "live `--session`: `--page`, and real time": ("live --session", "", "with --page"),
    "live `--page`: an address that is free": ("live --page 127.0.0.1:{port}", "", "cannot listen"),
    "live `--backend`: what the backend needs": ("live --backend magic", "", "unknown backend 'magic'"),
    "live `--mqtt`: `[mqtt]` (paho)": ("live --mqtt mqtt://h --bed 1", "paho", "[mqtt]"),
    "live `--mqtt`: an address, a password file and certificates that can be used": (
        "live --mqtt mqtt://u:secret@h --bed 1", "", "--mqtt-password-file"),
    "live `--mqtt`: `--bed`, or `--person`": ("live --mqtt mqtt://h", "", "--bed NAME"),
    "live `--bed`: `--mqtt`": ("live --bed 1", "", "--mqtt URL"),
    "live `--mqtt-discovery`: `--mqtt`, and a topic that can be published to": (
        "live --mqtt mqtt://h --bed 1 --mqtt-discovery home/+", "", "'home/+' cannot begin MQTT topics"),
    "live `--mqtt-ca`: `--mqtt`": ("live --mqtt-ca {file}", "", "--mqtt URL"),
    "live `--mqtt-password-file`: `--mqtt`": ("live --mqtt-password-file {file}", "", "--mqtt URL"),
    "station : `[page]` (starlette, uvicorn, websockets)": ("station --mqtt mqtt://h", "uvicorn", "[page]"),
    "station : `--mqtt` or `--bed`, not both": ("station --page 127.0.0.1:0", "", "PREFIX, or --bed NAME"),
    "station `--mqtt`: `[mqtt]` (paho)": ("station --mqtt mqtt://h", "paho", "[mqtt]"),
    "station `--mqtt`: an address, a password file and certificates that can be used": (
        "station --mqtt http://h --page 127.0.0.1:0", "", "not an MQTT address"),
    "station `--mqtt-ca`: `--mqtt`": ("station --bed 1=http://h --mqtt-ca x", "", "--mqtt URL"),
    "station `--mqtt-password-file`: `--mqtt`": ("station --bed 1=http://h --mqtt-password-file x", "", "--mqtt URL"),
    "station `--bed`: names, addresses, a token file and certificates that can be used": (
        "station --bed 1 --page 127.0.0.1:0", "", "names no bed"),
    "station `--bed-ca`: `--bed`": ("station --mqtt mqtt://h --bed-ca x", "", "--bed NAME=URL"),
    "station `--bed-token-file`: `--bed`": ("station --mqtt mqtt://h --bed-token-file x", "", "--bed NAME=URL"),
    "station `--page-cert`, `--page-key`: both of them": (
        "station --mqtt mqtt://h --page 127.0.0.1:0 --page-key k", "", "--page-cert"),
    "station `--page`: an address that is free": (
        "station --mqtt mqtt://h --page 127.0.0.1:{port}", "", "cannot listen"),
    "station `--log-file`: a folder that exists and may be written": (
        "station --mqtt mqtt://h --page 127.0.0.1:0 --log-file {folder}/none/l.txt", "", "does not exist"),
    "replay `--page`: `[page]` (starlette, uvicorn, websockets)": ("replay {folder} --page", "starlette", "[page]"),
    "replay `--require-signed`: `[sign]` (cryptography)": (
        "replay {folder} --require-signed", "cryptography", "[sign]"),
    "replay `--page`: an address that is free": ("replay {folder} --page 127.0.0.1:{port}", "", "cannot listen"),
    "replay `--backend`: what the backend needs": ("replay {folder} --backend magic", "", "unknown backend"),
    "export `--to parquet`: `[record]` (pyarrow)": ("export {folder} --to parquet", "pyarrow", "[record]"),
    "export `--to`, `--events`: one of them; `--events` goes with `csv` and `parquet`": (
        "export {folder} --to fhir --events", "", "--events"),
    "export `--subject`: `--to fhir`, and a reference": (
        "export {folder} --to csv --subject Patient/1", "", "--to fhir"),
    "export `--require-signed`: `[sign]` (cryptography)": (
        "export {folder} --to csv --require-signed", "cryptography", "[sign]"),
    "export : an output that does not exist, or an empty folder": (
        "export {folder} --to csv --out {bundle}", "", "is not overwritten"),
    "report `--require-signed`: `[sign]` (cryptography)": (
        "report {folder} --require-signed", "cryptography", "[sign]"),
    "report : an `--out` that does not exist": ("report {folder} --out {file}", "", "is not overwritten"),
    "personalise `--require-signed`: `[sign]` (cryptography)": (
        "personalise r --bundle {bundle} --out o --require-signed", "cryptography", "[sign]"),
    "personalise : an `--out` that does not exist": (
        "personalise r --bundle {bundle} --out {folder}", "", "exists"),
    "keygen : `[sign]` (cryptography)": ("keygen k", "cryptography", "[sign]"),
    "sign : `[sign]` (cryptography)": ("sign {bundle} --key k", "cryptography", "[sign]"),
    "verify : `[sign]` (cryptography)": ("verify {bundle}", "cryptography", "[sign]"),
    "inspect `--plot`: `[formats]` (matplotlib)": ("inspect {file} --plot p.png", "matplotlib", "[formats]"),
    "inspect `--plot`: a .png, .pdf or .svg in a folder that exists": ("inspect {file} --plot p.bmp", "", ".svg"),
    "actions `--out`: a folder that exists and may be written": (
        "actions {file} --out {folder}/none/a.csv", "", "does not exist"),
    "bench `--require-signed`: `[sign]` (cryptography)": ("bench --require-signed", "cryptography", "[sign]"),
    "bench `--predict`: `[build]` (onnx)": ("bench --predict thor", "onnx", "[build]"),
    "bench `--plot`: `[formats]` (matplotlib)": ("bench --predict thor --plot p.png", "matplotlib", "[formats]"),
    "bench `--plot`: `--predict`": ("bench --plot p.png", "", "--predict"),
    "bench `--layers`: `--predict`": ("bench --layers", "", "--predict"),
    "bench `--seconds`: `--people`": ("bench --seconds 9", "", "--people N"),
    "bench `--people`: a measurement of its own: no `--predict`, no `--compare`": (
        "bench --people 2 --compare {file}", "", "--people counts people, which --compare does not"),
    "bench `--predict`: a device of its table": ("bench --predict toaster", "", "toaster"),
    "bench `--json`, `--plot`: a folder that exists and may be written": (
        "bench --json {folder}/none/r.json", "", "does not exist"),
    "bench `--compare`: a report of `--json`": ("bench --compare {file}", "", "not a benchmark report"),
    "bench `--backend`: what the backend needs": ("bench --backend magic", "", "unknown backend"),
    "build : `[build]` (onnx)": ("build {bundle}", "onnx", "[build]"),
    "build `--data` (a data set): `[train]` (torch, lightning)": (
        "build {bundle} --data {folder}", "torch", "[train]"),
    "build `--cubin`: `[cubin]` (torch, triton)": ("build {bundle} --cubin sm_87", "triton", "[cubin]"),
    "build `--require-signed`: `[sign]` (cryptography)": (
        "build {bundle} --require-signed", "cryptography", "[sign]"),
    "build `--out`: a name that does not exist": ("build {bundle} --out {folder}", "", "exists"),
    "build `--data`: data that exist": ("build {bundle} --out o --data {folder}/none", "", "there is no"),
    "build `--builder`, `--target`, `--precision`, `--batch`: a builder that runs here, compiles for the target, and "
    "a bundle that has the precision ([table](building.md#what-goes-with-what))": (
        "build {bundle} --out o --builder onnxruntime --precision int8", "", "no INT8 calibration"),
    "build `--cubin`: devices of its table, and the fusion's weights in the bundle": (
        "build {bundle} --out o --cubin sm_87,sm_1", "", "no cubin target 'sm_1'"),
    "calibrate : `[build]` (onnx)": ("calibrate {bundle}", "onnx", "[build]"),
    "calibrate `--data` (a data set): `[train]` (torch, lightning)": (
        "calibrate {bundle} --data {folder}", "lightning", "[train]"),
    "calibrate `--require-signed`: `[sign]` (cryptography)": (
        "calibrate {bundle} --require-signed", "cryptography", "[sign]"),
    "calibrate `--out`: a name that does not exist": ("calibrate {bundle} --out {folder}", "", "exists"),
    "calibrate `--data`: data that exist": ("calibrate {bundle} --out o --data {folder}/none", "", "there is no"),
    "train : `[train]` (torch, torchvision, lightning, onnx, onnxscript)": (
        "train --recipe biovid-jmt --data {folder} --out r", "lightning", "[train]"),
    "train `--grid`: `[train]` (optuna)": (
        "train --recipe biovid-jmt --data {folder} --out r --grid lr=1,2", "optuna", "[train]"),
    "train `--logger`: known names, and their packages": (
        "train --recipe biovid-jmt --data {folder} --out r --logger csvv", "", "'csvv' is unknown"),
    "train `--launcher`: its package, and Slurm's `sbatch`": (
        "train --recipe biovid-jmt --data {folder} --out r --launcher slurm", "", "slurm"),
    "train `--accelerator gpu`: a CUDA device": (
        "train --recipe biovid-jmt --data {folder} --out r --accelerator gpu", "", "no CUDA device"),
    "train `--recipe`, `--set`, `--grid`: known recipes, keys and values": (
        "train --recipe biovid-jmt --data {folder} --out r --grid optimizer=adam,magic", "", "magic"),
    "train `--protocol`: a known protocol": (
        "train --recipe biovid-jmt --data {folder} --out r --protocol kfold:x", "", "unknown protocol"),
    "train `--data`: data that exist": (
        "train --recipe biovid-jmt --data {folder}/none --out r", "", "there is no"),
    "train `--check`: data that exist": ("train --check {folder}/none", "", "there is no"),
    "evaluate : `[train]` (torch, torchvision, lightning, onnx, onnxscript)": (
        "evaluate {bundle} --data {folder}", "torch", "[train]"),
    "evaluate `--data`: data that exist": ("evaluate {bundle} --data {folder}/none", "", "there is no"),
    "evaluate `--recipe`, `--set`: known recipes, keys and values": (
        "evaluate --suite --recipe magic --data {folder} --out o", "", "unknown recipe 'magic'"),
    "synth `affwild2`: `[record]` (av)": ("synth affwild2 --out o", "av", "[record]"),
    "synth `--out`: a folder that exists and may be written": ("synth biovid --out {file}/o", "", "not a folder"),
    "push : `[hub]` (huggingface_hub)": ("push {bundle} a/b", "huggingface_hub", "[hub]"),
    "push : a repository named OWNER/NAME": ("push {bundle} ab", "", "OWNER/NAME"),
    "import : `[train]` (torch, torchvision, lightning, onnx, onnxscript)": (
        "import {file} --task pain --out o", "onnxscript", "[train]"),
    "import : a checkpoint that exists": ("import {folder}/none --task pain --out o", "", "there is no"),
    "import `--out`: a name that does not exist, or `--overwrite`": (
        "import {file} --task pain --out {folder}", "", "exists"),
}  # fmt: skip


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text\n")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        yield {
            "bundle": demo_bundle("pain"), "folder": tmp_path / "folder", "file": tmp_path / "file",
            "port": busy.getsockname()[1],
        }  # fmt: skip


@pytest.mark.parametrize("need", NEEDS, ids=lambda n: n.name.split(" (")[0])
def test_a_command_says_what_it_lacks_before_it_begins(
    need: Any, places: dict[str, Any], command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, lacking, part = CASES[need.name]
    words = [word.format(**places) for word in line.split()]
    body = cli.get_command(click.Context(cli), words[0])
    assert isinstance(body, Command)
    monkeypatch.setattr(body, "callback", lambda **flags: pytest.fail("it began to work"))
    if lacking:
        monkeypatch.setattr(_needs, "find_spec", lambda name: None if name == lacking else find_spec(name))
    before = sorted(Path().rglob("*"))
    code, out, err = command_line(*words)
    assert (code, out) == (2, ""), err
    assert err.startswith("jmt-edge: ") and part in err and len(err.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


def test_every_need_has_a_case_and_every_case_a_need() -> None:
    names = [need.name for need in NEEDS]
    assert len(set(names)) == len(names)
    assert set(CASES) == set(names)
    assert {need.command for need in NEEDS} <= set(COMMANDS)


def test_what_meets_every_need_begins(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    body = cli.get_command(click.Context(cli), "live")
    assert body is not None
    monkeypatch.setattr(body, "callback", lambda **flags: print("began"))
    assert command_line("live", "--page", "127.0.0.1:0", "--threads", "1")[:2] == (0, "began\n")


def test_a_file_that_exists_is_written_again_and_a_folder_is_not(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for name, option in (("live", "--log-file"), ("bench", "--json"), ("inspect", "--plot")):
        body = cli.get_command(click.Context(cli), name)
        assert body is not None
        monkeypatch.setattr(body, "callback", lambda **flags: print("began"))
        file = (tmp_path / "file").rename(tmp_path / "file.png") if name == "inspect" else tmp_path / "file"
        more = [str(file)] if name == "inspect" else []
        assert command_line(name, *more, option, file)[:2] == (0, "began\n")
    for name, option in (("live", "--log-file"), ("bench", "--json")):
        code, _, err = command_line(name, option, tmp_path)
        assert code == 2 and "a folder; choose another file" in err


def test_the_page_of_commands_has_the_same_table() -> None:
    assert "\n".join(needs_table()) in (ROOT / "docs" / "reference" / "commands.md").read_text()


def test_the_extra_that_is_named_brings_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distribution = {"cuda": "cuda-bindings", "tensorrt": "tensorrt-cu12"}

    def brings(extra: str) -> str:
        lines = extras[extra]
        return " ".join([*lines, *(brings(line[9:].split("]")[0]) for line in lines if line.startswith("jmt-edge["))])

    for module, extra in EXTRA_OF.items():
        assert distribution.get(module, module.replace("_", "-")) in brings(extra), (module, extra)
    for need in NEEDS:
        if need.what.startswith("`["):
            extra, modules = need.what[2:].split("]` (")
            assert all(m.replace("_", "-") in brings(extra) for m in modules.rstrip(")").split(", ")), need.name


WAYS = list(
    itertools.product(
        ("fp32", "fp16", "int8", "auto"), ("auto", "tensorrt", "tensorrt-rtx", "torch-tensorrt", "onnxruntime"),
        ("current", "sm_86", "sm_87"), ((), ("--batch", "1,2,4")), ((), ("--cubin", "sm_87")),
    )
)  # fmt: skip


def test_a_build_that_begins_succeeds(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All combinations of options on a bundle without INT8: each is refused at once, or ends with a bundle."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from engine_bundles import flat_task, random_weights

    import jmt_edge.calibration.sources as sources
    import jmt_edge.compiler.cubins as cubins

    flat = random_weights(flat_task(), tmp_path / "flat.jmt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    began: list[int] = []
    load = sources.load_windows
    monkeypatch.setattr(sources, "load_windows", lambda *a, **k: began.append(1) or load(*a, **k))
    files = {"cubins/index.json": json.dumps({}).encode()}
    section = {"index": "cubins/index.json", "targets": ["sm_87"], "precision": "float16", "steps": 1, "batch": 1}
    monkeypatch.setattr(cubins, "bundle_cubins", lambda *a: (files, {"cubins": section}))
    done = 0
    for number, (precision, builder, target, batch, cubin) in enumerate(WAYS):
        began.clear()
        out = tmp_path / f"{number}.jmt"
        code, _, err = command_line(
            "build", flat.path, "--out", out, "--windows", "1", "--precision", precision, "--builder", builder,
            "--target", target, *batch, *cubin,
        )  # fmt: skip
        assert "Traceback" not in err
        if code == 2:
            assert not began, (precision, builder, target, batch, cubin, err)
        else:
            assert began and out.is_dir()
            done += 1
            if precision == "auto":
                assert "left out: INT8: the bundle has no calibration" in err
                report = next((out / "reports").rglob("build.json"))
                assert json.loads(report.read_text())["engine"]["left_out"]
    assert 10 < done < len(WAYS) / 2
