"""Every command that the README, the how-tos and the tutorials show is run as written, in the order of its page.

A run of `live` is made short by its environment (`JMT_EDGE_LIVE_DURATION`), which overrides no flag. Devices that
are not here are replaced by the simulated ones that the documentation names, addresses by free ones. What cannot be
run in a test is in `EXCEPTIONS`, with the reason; its options are checked all the same.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from jmt_edge.cli import cli
from jmt_edge.cli.live import demo_bundle

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted((DOCS / "howto").glob("*.md")), *sorted((DOCS / "tutorials").glob("*.md"))]
CommandLine = Callable[..., tuple[int, str, str]]

# the start of a command -> why it is not run; the longest that fits holds
EXCEPTIONS = {
    "jmt-edge station": "runs until it is stopped; tests/beds/test_beds_mqtt.py",
    "jmt-edge sim-board": "runs until it is stopped; tests/eda_capture/test_eda_cli.py",
    "jmt-edge synth": "takes minutes; tests/simulated/test_simulated_synth.py",
    "jmt-edge train": "takes minutes; tests/training/test_training_commands.py",
    "jmt-edge evaluate": "takes minutes; tests/training/test_training_commands.py",
    "jmt-edge calibrate": "takes minutes; tests/calibration/test_calibration_run.py",
    "jmt-edge build": "takes minutes, or a GPU; tests/engine/test_engine_cli.py, tests/package/test_needs.py",
    "jmt-edge bench": "takes minutes; tests/bench",
    "jmt-edge import": "needs a checkpoint of the released code; tests/models/test_models_import.py",
    "jmt-edge personalise": "needs recordings with ratings; tests/recording/test_recording_personalise.py",
    "jmt-edge live --bundle pain.jmt --record day1 --page": "the first of those recordings",
    "jmt-edge live --bundle pain-P07.jmt": "needs the bundle made of them",
    "jmt-edge live --bundle pain-orin.jmt --backend tensorrt": "needs a GPU; tests/engine/test_engine_cli.py",
    "jmt-edge live --bundle runs/mine/biovid-jmt.jmt": "needs the training before it; tests/training",
    "jmt-edge live --eda session.xdf?column=EDA left": "needs an XDF file; tests/media/test_media_eda_formats.py",
    "jmt-edge live --bundle other.jmt": "needs a recording with raw sound; tests/recording/test_recording_replay.py",
}  # fmt: skip
# programs that are not ours -> why they are not run
OTHERS = {
    "sudo": "changes the system", "systemctl": "changes the system", "editor": "is for a person",
    "npm": "fetches from the network", ".": "is the shell's own", "umask": "is the shell's own",
    "export": "is the shell's own", "echo": "is the shell's own", "mkdir": "is the system's", "cp": "is the system's",
    "install": "is the system's", "tail": "is the system's", "ls": "is the system's",
    "docker": "needs a container engine",
}  # fmt: skip
# devices that are not here -> what the documentation has in their place
SIMULATED = {
    "--camera": {"0": "sim:", "csi:0": "sim:"},
    "--eda": dict.fromkeys(("bitalino:/dev/ttyUSB0", "auto:/dev/ttyUSB0", "bitalino:/tmp/board?channel=3"), "sim:"),
}


def blocks(page: Path) -> Iterator[str]:
    """The fenced blocks of commands; those of output are marked `text`."""
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```", page.read_text(), re.M | re.S):
        if found[2] in ("", "sh", "bash"):
            yield found[3]


def commands(page: Path) -> list[list[str]]:
    """The words of every command of a page, without comments, redirections and variables before it."""
    found: list[list[str]] = []
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
            lexer.whitespace_split, lexer.commenters = True, "#"
            found.append([])
            for word in lexer:
                if word in (";", "&&", "|", "&"):
                    found.append([])
                else:
                    found[-1].append(word)
    return [_plain(words) for words in found if words]


def _plain(words: list[str]) -> list[str]:
    if ">" in words:
        at = words.index(">")
        words = words[:at] + words[at + 2 :]
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return words


ALL = [(page, words) for page in PAGES for words in commands(page)]


def exception(words: list[str]) -> str | None:
    text = " ".join(words)
    if words[1] == "bench" and "--predict" in words:
        return None  # a prediction takes a second
    return max((start for start in EXCEPTIONS if text.startswith(start)), key=len, default=None)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader of the pages has: trained bundles, a clip with sound, EDA files, a key of the page."""
    from jmt_edge.cli import main
    from jmt_edge.opencv import cv2

    av = pytest.importorskip("av", reason="PyAV is not installed")
    import numpy as np

    folder = tmp_path_factory.mktemp("inputs")
    for name in ("pain.jmt", "my.jmt", "pain-orin.jmt"):
        shutil.copytree(demo_bundle("pain"), folder / name)
    shutil.copytree(demo_bundle("trimodal"), folder / "pain-2.jmt")  # another one than pain.jmt
    rng = np.random.default_rng(0)
    with av.open(str(folder / "talk.mp4"), "w") as container:
        video, sound = container.add_stream("mpeg4", rate=25), container.add_stream("aac", rate=16000)
        video.width, video.height, sound.layout = 160, 120, "mono"
        for i in range(25 * 7):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (120, 160, 3), np.uint8), "rgb24")
            frame.pts = i
            container.mux(video.encode(frame))
        for i in range(0, 16000 * 7, 1000):
            samples = av.AudioFrame.from_ndarray(rng.normal(0, 0.1, (1, 1000)).astype(np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = 16000, i
            container.mux(sound.encode(samples))
        for stream in (video, sound):
            container.mux(stream.encode())
    (folder / "frames").mkdir()
    for i in range(25 * 7):
        cv2.imwrite(str(folder / "frames" / f"{i:04d}.png"), np.full((120, 160, 3), i % 255, np.uint8))
    signal = 2 + np.cumsum(rng.normal(0, 0.01, 250 * 10))
    (folder / "talk.csv").write_text("time,eda\n" + "".join(f"{i / 250},{v:.4f}\n" for i, v in enumerate(signal)))
    (folder / "table.csv").write_text(
        "time,gsr_left,gsr_right\n" + "".join(f"{i / 250},{v:.4f},{v:.4f}\n" for i, v in enumerate(signal))
    )
    (folder / "eda.txt").write_text("".join(f"{v:.4f}\n" for v in signal))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out",
         folder / "cert.pem", "-days", "2", "-subj", "/CN=localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert main is not None
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page(
    page: Path, inputs: Path, tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for source in inputs.iterdir():
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / source.name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in (("DURATION", "7"), ("SPEED", "max"), ("THREADS", "1")):
        monkeypatch.setenv(f"JMT_EDGE_LIVE_{name}", value)
    for words in commands(page):
        if words[0] == "jmt-edge":
            _run_ours(words, tmp_path, command_line)
        else:
            _check_other(words, tmp_path)


def _run_ours(words: list[str], place: Path, command_line: CommandLine) -> None:
    text = " ".join(words)
    parse(words)
    if exception(words) is not None:
        return
    arguments = _here(words[1:], place)
    if words[1] == "replay" and not (place / arguments[1]).exists():
        assert command_line("live", "--record", arguments[1], "--record-raw", "face,eda")[0] == 0
    if (arguments[1:2] and arguments[-1] == str(place / "etc/jmt-edge/jmt-edge.toml")) or "--config" in arguments:
        (place / "etc/jmt-edge").mkdir(parents=True, exist_ok=True)
        example = (ROOT / "deploy/systemd/jmt-edge.toml").read_text()
        example = example.replace("camera = 0 ", 'camera = "sim:" ').replace('"auto:/dev/ttyUSB0"', '"sim:"')
        (place / "etc/jmt-edge/jmt-edge.toml").write_text(example.replace("127.0.0.1:8765", "127.0.0.1:0"))
    if words[1] == "sign" and not Path(arguments[1]).exists():
        assert command_line("live", "--record", arguments[1])[0] == 0
    code, out, err = command_line(*arguments)
    wanted = (0, 1) if words[1] == "doctor" else (0,)  # 1: this machine lacks a sensor's library
    assert code in wanted, f"{text}\n{out[-500:]}{err}"


def _here(arguments: list[str], place: Path) -> list[str]:
    """The arguments with simulated devices, free addresses and folders of the test."""
    done: list[str] = []
    for i, word in enumerate(arguments):
        before = arguments[i - 1] if i else ""
        if before in SIMULATED:
            word = SIMULATED[before].get(word, word)
        elif before == "--page" and ":" in word:
            word = "127.0.0.1:0"
        elif word.startswith(("/etc/", "/tmp/")):
            word = str(place / word.lstrip("/"))
        done.append(word)
        if word == "--page" and not (i + 1 < len(arguments) and ":" in arguments[i + 1]):
            done.append("127.0.0.1:0")
    return done


def parse(words: list[str]) -> None:
    """Refuses a command, an option or a value that does not exist."""
    context = click.Context(cli, info_name="jmt-edge")
    command, arguments = cli.get_command(context, words[1]), words[2:]
    assert command is not None, f"no command {words[1]}"
    while isinstance(command, click.Group):
        command, arguments = command.get_command(context, arguments[0]), arguments[1:]
        assert command is not None, words
    try:
        if "--config" not in arguments:
            command.make_context(words[1], list(arguments), parent=context)
    except click.ClickException as error:
        pytest.fail(f"{' '.join(words)}: {error.format_message()}")


def _check_other(words: list[str], place: Path) -> None:
    program, rest = words[0], words[1:]
    text = " ".join(words)
    named = [word for word in rest if word.startswith(("deploy/", "training/", "tests/", "scripts/"))]
    assert all((ROOT / word).exists() for word in named), text
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.M), text
    elif program.endswith("pip"):
        _check_pip(rest, text)
    elif program.endswith(("python", "python3")):
        if rest[0] == "-m":
            assert importlib.util.find_spec(rest[1].split(".")[0]) or (ROOT / rest[1].split(".")[0]).is_dir(), text
            assert "jmt_edge" not in rest[1] or importlib.util.find_spec(rest[1]), text
        elif rest[0] == "-c":
            compile(rest[1], text, "exec")
        else:
            assert rest[0] in page_texts(), text  # a script that a page shows
    else:
        assert program in OTHERS, f"{text}: neither run nor an exception"
    if program == "cp" and not named and rest[-2] == "lab.key.pub":
        (place / "home/.config/jmt-edge/trusted").mkdir(parents=True)
        shutil.copyfile(place / "lab.key.pub", place / "home/.config/jmt-edge/trusted/lab.pub")


def page_texts() -> str:
    return "".join(page.read_text() for page in PAGES)


def _check_pip(rest: list[str], text: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"jmt[-_]edge(?:-\S*?\.whl)?\[([\w,-]+)\]", text):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), text
    if "-c" in rest:
        assert (ROOT / "deploy" / "constraints" / rest[rest.index("-c") + 1]).is_file(), text


def test_the_lists_of_exceptions_are_no_longer_than_needed() -> None:
    ours = [words for _, words in ALL if words[0] == "jmt-edge"]
    assert {exception(words) for words in ours} - {None} == set(EXCEPTIONS)
    assert {words[0] for _, words in ALL} >= set(OTHERS)
    for option, values in SIMULATED.items():
        for value in values:
            assert any(f"{option} {value}" in " ".join(words) for words in ours), value
    for reason in EXCEPTIONS.values():
        for name in re.findall(r"tests/[\w/]+(?:\.py)?", reason):
            assert (ROOT / name).exists(), name
    assert len(ours) > 90 and sum(exception(words) is None for words in ours) > 45


@pytest.mark.parametrize(
    "line", ["jmt-edge live --camra 0", "jmt-edge fly", "jmt-edge live --speed 2", "jmt-edge config fix"]
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises((pytest.fail.Exception, AssertionError)):
        parse(line.split())
