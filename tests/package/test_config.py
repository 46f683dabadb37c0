"""One option, three places: a flag, an environment variable, a key of the file; which holds, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from jmt_edge.cli import COMMANDS, cli
from jmt_edge.cli._config import settings_of, variable_of
from jmt_edge.cli.live import command as live

ROOT = Path(__file__).parents[2]
CommandLine = Callable[..., tuple[int, str, str]]
# a value other than the default for every setting: (as the file has it, as the program gets it)
VALUES: dict[str, tuple[Any, Any]] = {
    "task": ("affect", "affect"), "bundle": ("a.jmt", Path("a.jmt")), "camera": (0, "0"), "microphone": ("a.wav",) * 2,
    "eda": ("/dev/ttyUSB0",) * 2, "hop": (1, 1.0), "duration": (3.5, 3.5), "speed": ("max", "max"),
    "output": ("none", "none"), "smooth": (2, 2.0), "backend": ("onnxruntime",) * 2, "threads": (1, 1),
    "eda-delay": (0.25, 0.25), "audio-delay": (0.1, 0.1), "record": ("r", Path("r")),
    "record-raw": (["eda", "face"], "eda,face"), "resume": (True, True), "lsl": ("jmt", "jmt"), "mark": (True, True),
    "page": (True, "127.0.0.1:8765"), "novelty": ("warn", "warn"), "follow": ("first", "first"),
    "person": (["a:eda=sim:", "b:camera=0"], ("a:eda=sim:", "b:camera=0")),
    "rest": (120, 120.0), "actions": (True, True),
    "demo-alarms": (True, True), "require-signed": (True, True), "page-face": ("blur", "blur"),
    "page-ask": (30, 30), "session": (True, True), "trace": ("t.json", Path("t.json")), "language": ("de", "de"),
    "page-cert": ("c.pem", Path("c.pem")), "page-key": ("k.pem", Path("k.pem")), "log-level": ("error", "error"),
    "log-file": ("l.txt", Path("l.txt")), "mqtt": ("mqtt://h",) * 2, "bed": (12, "12"),
    "mqtt-password-file": ("p", Path("p")), "mqtt-ca": ("ca.pem", Path("ca.pem")),
    "mqtt-discovery": (True, "homeassistant"),
}  # fmt: skip


def written(path: Path, settings: dict[str, Any]) -> Path:
    """The settings under [live]; JSON's values are TOML's."""
    path.write_text("[live]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    return path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, command_line: CommandLine) -> Callable[..., dict[str, Any]]:
    """What `live` would be called with."""
    from jmt_edge.cli import _command

    for name in [n for n in os.environ if n.startswith("JMT_EDGE_LIVE_")]:
        monkeypatch.delenv(name)
    got: list[dict[str, Any]] = []
    monkeypatch.setattr(live, "callback", lambda **flags: got.append(flags))
    monkeypatch.setattr(_command, "require", lambda name, flags: None)

    def call(*args: object) -> dict[str, Any]:
        got.clear()
        code, _, err = command_line("live", *args)
        assert code == 0, err
        return got[0]

    return call


def test_every_flag_can_be_a_key_and_a_variable(
    tmp_path: Path, seen: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(live)
    assert set(settings) == set(VALUES), "a new option needs a value here, and nothing else"
    names = {key: str(option.name) for key, option in settings.items()}
    default = seen()
    wanted = {names[key]: value for key, (_, value) in VALUES.items()}
    assert all(default[name] != value for name, value in wanted.items()), "a value must differ from the default"
    assert seen("--config", written(tmp_path / "a.toml", {key: v for key, (v, _) in VALUES.items()})) == wanted
    for key, (_, value) in VALUES.items():
        monkeypatch.setenv(variable_of("live", key), ";".join(value) if isinstance(value, tuple) else str(value))
    assert seen() == wanted


def test_people_may_be_tables(tmp_path: Path, seen: Callable[..., dict[str, Any]]) -> None:
    file = tmp_path / "a.toml"
    file.write_text(
        "[live]\nhop = 1\n[live.person.\"bed 1\"]\ncamera = 0\neda = 'auto:/dev/ttyUSB0'\neda-delay = 0.25\n"
        "[live.person.b]\nmicrophone = 'sim:'\n"
    )
    got = seen("--config", file)
    assert got["people"] == ("bed 1:camera=0,eda=auto:/dev/ttyUSB0,eda-delay=0.25", "b:microphone=sim:")
    assert got["hop"] == 1.0 and seen("--config", file, "--person", "c:eda=sim:")["people"] == ("c:eda=sim:",)


def test_flag_before_environment_before_file_before_default(
    tmp_path: Path, seen: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "a.toml", {"hop": 2, "smooth": 4.0, "mark": True, "camera": "file"})
    monkeypatch.setenv("JMT_EDGE_LIVE_SMOOTH", "5")
    monkeypatch.setenv("JMT_EDGE_LIVE_MARK", "0")
    monkeypatch.setenv("JMT_EDGE_LIVE_CAMERA", "environment")
    got = seen("--camera", "flag", "--config", file)
    assert (got["camera"], got["smooth"], got["mark"], got["hop"], got["threads"]) == ("flag", 5.0, False, 2.0, None)
    monkeypatch.setenv("JMT_EDGE_LIVE_CONFIG", str(file))
    assert seen()["hop"] == 2.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[live]\ncamra = 0\n", "[live] has no 'camra'; did you mean camera?"),
        ("[live]\npage_face = 'blur'\n", "did you mean page-face?"),
        ("[live]\nzzzzzz = 0\n", "[live] has no 'zzzzzz'; known are actions, audio-delay, backend,"),
        ("[liv]\ncamera = 0\n", "[liv] has no settings; did you mean [live]?"),
        ("camera = 0\n", "'camera' is outside a table"),
        ("[live]\nhop = '1'\n", "[live] hop = '1': give a number"),
        ("[live]\nhop = true\n", "[live] hop = true: give a number"),
        ("[live]\nthreads = 1.5\n", "threads = 1.5: '1.5' is not a valid integer range"),
        ("[live]\nthreads = 0\n", "0 is not in the range 1<=x<=256"),
        ("[live]\nspeed = 2\n", "'2' is not one of '1', 'max'"),
        ("[live]\nmark = 'yes'\n", "[live] mark = 'yes': it is on or off; give true or false"),
        ("[live]\ncamera = true\n", "[live] camera = true: give a text in quotes"),
        ("[live]\ncamera = ['0']\n", "give a text in quotes"),
        ("[live]\nrecord-raw = [1]\n", "give a text in quotes"),
        ("[live]\ncamera = {a = 1}\n", "give a text in quotes"),
        ("[live]\nperson = 'a:eda=sim:'\n", "give a list of texts in quotes"),
        ("[live.person]\na = 'eda'\n", "write a table of texts and numbers for a"),
        ("[live.person.a]\neda = ['sim:']\n", "write a table of texts and numbers for a"),
        ("[live]\nconfig = 'b.toml'\n", "has no 'config'"),
        ("[live\n", "is not TOML"),
        ("[live]\nhop = 1\nhop = 2\n", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("\udcff", "is not TOML"),
        ("[other]\n", "[other] has no settings"),
    ],
)
def test_a_wrong_file_is_refused_with_its_fault(
    text: str, says: str, tmp_path: Path, command_line: CommandLine
) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    for words in (("config", "check", file), ("live", "--config", file), ("config", "show", file)):
        code, out, err = command_line(*words)
        assert code == 2 and err.startswith("jmt-edge: configuration ") and says in err and len(err.splitlines()) == 1
        assert "Traceback" not in out + err


def test_all_faults_are_said_at_once(tmp_path: Path, command_line: CommandLine) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[live]\ncamra = 0\nhop = 'x'\n[liv]\n")
    _, _, err = command_line("config", "check", file)
    assert all(part in err for part in ("'camra'", "hop = 'x'", "[liv]"))


def test_a_missing_file_or_table_is_one_sentence(tmp_path: Path, command_line: CommandLine) -> None:
    code, _, err = command_line("live", "--config", tmp_path / "none.toml")
    assert code == 2 and "cannot be read" in err
    (tmp_path / "empty.toml").write_text("")
    code, out, _ = command_line("config", "check", tmp_path / "empty.toml")
    assert (code, out) == (0, f"{tmp_path / 'empty.toml'}: no settings\n")
    code, _, err = command_line("live", "--config", tmp_path / "empty.toml")
    assert code == 2 and "has no table [live]" in err


def test_an_unknown_variable_is_refused(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JMT_EDGE_LIVE_CAMRA", "0")
    code, _, err = command_line("live")
    assert code == 2 and "did you mean JMT_EDGE_LIVE_CAMERA?" in err


def test_what_show_prints_is_a_file_that_means_the_same(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "a.toml", {key: value for key, (value, _) in VALUES.items()})
    monkeypatch.setenv("JMT_EDGE_LIVE_HOP", "0.25")
    code, shown, _ = command_line("config", "show", file)
    assert code == 0 and "hop = 0.25  # JMT_EDGE_LIVE_HOP\n" in shown and f'task = "affect"  # {file}\n' in shown
    monkeypatch.delenv("JMT_EDGE_LIVE_HOP")
    again = tmp_path / "b.toml"
    again.write_text(shown)
    _, repeated, _ = command_line("config", "show", again)
    assert tomllib.loads(repeated) == tomllib.loads(shown)


def test_the_example_of_the_unit_is_a_good_file(command_line: CommandLine) -> None:
    code, out, err = command_line("config", "check", ROOT / "deploy" / "systemd" / "jmt-edge.toml")
    assert code == 0 and "settings of `jmt-edge live`, all known" in out, err
    station = ROOT / "deploy" / "systemd" / "station.toml"
    code, out, err = command_line("config", "check", station)
    assert code == 0 and "settings of `jmt-edge station`, all known" in out, err
    code, out, err = command_line("config", "show", station)
    assert code == 0 and f'mqtt = "mqtts://station@broker.ward/ward-3"  # {station}' in out


def test_the_example_of_the_unit_with_everything_it_suggests_is_a_good_file(
    command_line: CommandLine, tmp_path: Path
) -> None:
    text = (ROOT / "deploy" / "systemd" / "jmt-edge.toml").read_text()
    (tmp_path / "all.toml").write_text(re.sub(r"^# (?=[a-z-]+ = )", "", text, flags=re.M))
    code, out, err = command_line("config", "check", tmp_path / "all.toml")
    assert code == 0 and int(out.split(": ")[1].split()[0]) > 9, err


def _commands() -> list[tuple[str, click.Command]]:
    found = []
    for name in COMMANDS:
        one = cli.get_command(click.Context(cli), name)
        assert one is not None
        found += [(name, one)] if not isinstance(one, click.Group) else [
            (f"{name} {sub}", each) for sub, each in one.commands.items()
        ]  # fmt: skip
    return found


@pytest.mark.parametrize(("name", "one"), _commands(), ids=[name for name, _ in _commands()])
def test_every_option_names_its_value_and_every_command_shows_examples(name: str, one: click.Command) -> None:
    with click.Context(one, info_name=name) as context:
        text = one.get_help(context)
        for parameter in one.params:
            if isinstance(parameter, click.Option) and not parameter.is_flag and not parameter.count:
                value = parameter.make_metavar(context) if click_takes_context() else parameter.make_metavar()  # type: ignore[call-arg]
                assert isinstance(parameter.type, click.Choice) or value in METAVARS, f"{parameter.opts}: {value}"
    if " " not in name:
        assert "\nExamples:\n  # " in text and f"\n  jmt-edge {name}" in text


METAVARS = {
    "PATH", "DIR", "FILE", "N", "K", "S", "HZ", "MS", "PPM", "R", "X", "SHARE", "PERCENT", "NAME", "TASK", "SRC",
    "LIST", "DEVICE", "KEY", "PUB", "CODE", "MIN", "NAME:KEY=SRC,...",
    "KEY=VALUE", "KEY=V1,V2", "NAME=URL", "MODALITY=FILE", "MODALITY=FILE|torchvision", "MIN,OPT,MAX",
    "AT:FOR", "FROM-TO", "[HOST:PORT]", "HOST:PORT", "URL", "[PREFIX]", "REFERENCE",
}  # fmt: skip


def click_takes_context() -> bool:
    import inspect

    return "ctx" in inspect.signature(click.Option.make_metavar).parameters


def test_messages_go_where_they_are_wanted(tmp_path: Path, command_line: CommandLine) -> None:
    run = ("live", "--task", "pain", "--duration", "4", "--speed", "max", "--output", "none", "--threads", "1")
    code, _, err = command_line(*run, "--log-file", tmp_path / "log.txt")
    kept = (tmp_path / "log.txt").read_text()
    assert code == 0 and "pain-demo@" in err and "INFO jmt_edge.cli.live: pain-demo@" in kept
    code, out, err = command_line(*run, "--log-level", "error")
    assert (code, out, err) == (0, "", "")


def test_bash_completes_commands_and_options() -> None:
    """As docs/reference/commands.md says it is turned on; click's own mechanism asks the program."""
    program = [str(Path(sys.executable).with_name("jmt-edge"))]
    for words, index, wanted in (("jmt-edge li", "1", "live"), ("jmt-edge live --page-f", "2", "--page-face")):
        environment = {**os.environ, "_JMT_EDGE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": index}
        done = subprocess.run(program, env=environment, capture_output=True, text=True)
        assert f"plain,{wanted}" in done.stdout.splitlines(), done.stdout + done.stderr
    assert "_JMT_EDGE_COMPLETE=bash_source jmt-edge" in (ROOT / "docs" / "reference" / "commands.md").read_text()
