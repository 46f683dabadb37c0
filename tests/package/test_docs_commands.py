"""Every command of the index, the README, the how-tos and the tutorials is run as written, in the order of its page.

What is too large for a test is made small by `SMALLER`, `ADDED` and the environment (`JMT_EDGE_LIVE_DURATION`).
Devices, brokers and addresses that are not here are replaced at the outermost edge (`HERE`): a simulated sensor, a
pseudo-terminal, a Mosquitto of the test's own. A program that runs until it is stopped runs beside the commands after
it. What cannot be run in a test is in `NOT_RUN`, with the reason and the number of its lines; its options are checked
all the same.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import shutil
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from jmt_edge.cli import cli
from jmt_edge.cli.live import demo_bundle

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", DOCS / "index.md"]
PAGES += [page for folder in ("tutorials", "howto") for page in sorted((DOCS / folder).glob("*.md"))]
CommandLine = Callable[..., tuple[int, str, str]]

# the start of a line -> how many such lines there are, and why they are not run; the longest start that fits holds
NOT_RUN = {
    "jmt-edge build pain.jmt --cubin": (1, "compiles for minutes; kernels/, tests/package/test_needs.py"),
    "jmt-edge import": (1, "needs a checkpoint of the released code; tests/models/test_models_import.py"),
    "sudo": (5, "changes the system"),
    "systemctl": (4, "changes the system; tests/package/test_deploy.py"),
    "editor": (1, "is for a person"),
    "npm": (1, "fetches from the network"),
    "docker": (2, "needs a container engine; tests/package/test_deploy.py"),
    "ls /dev": (1, "needs the devices"),
    "pip": (23, "fetches from the network; tests/package/test_package_build.py, tests/package/test_profiles.py"),
    "/opt/jmt-edge/bin/pip": (2, "installs for the whole machine"),
    ".": (3, "changes the shell that it is typed into"),
    "make": (3, "are the test itself, or minutes; Makefile"),
    "python -m build": (1, "makes what tests/package/test_package_build.py makes"),
    "python -m benchmarks.reports": (1, "changes committed reports; tests/bench"),
    "python -m jmt_edge.preprocessing": (3, "needs what is fetched before it"),
    "python -c": (1, "needs TensorRT of JetPack"),
    "python3 -m venv": (5, "makes an environment for what is fetched after it"),
    ".venv/bin/python -m pytest": (4, "is run by `make test`"),
}  # fmt: skip
# the start of a command -> the sentence that this machine, without the hardware, answers; no work is done before it
REFUSED = {
    "jmt-edge build pain-calibrated.jmt --precision int8 --builder tensorrt --out": "tensorrt",
    "jmt-edge build pain-calibrated.jmt --precision auto --builder tensorrt": "tensorrt",
    "jmt-edge build pain.jmt --precision fp32 --builder torch-tensorrt": "GPU",
    "jmt-edge live --bundle pain-orin.jmt --backend tensorrt": "tensorrt",
}
# run up to where clips are cut for training, which takes hours here; tests/training trains each of these, small
UNTIL_TRAINING = (
    "jmt-edge train --recipe mine.json",
    "jmt-edge train --recipe biovid-eda,",
    "jmt-edge train --recipe biovid-jmt --data DATA",
    "jmt-edge evaluate --suite",
    "python train_mine.py",
)
# option -> value in the page -> a smaller one
SMALLER = {
    "--subjects": {"24": "4"},
    "--folds": {"5": "2"},
    "--protocol": {"kfold:5": "kfold:2", "kfold:4": "kfold:2"},
    "--windows": {"256": "8"},
    "--duration": {"60": "3"},
    "--processes": {"10": "2"},
}
ONE_EPOCH = "--set face.epochs=1 --set eda.epochs=1 --set fusion.epochs=1"
# the start of a command -> words that make it small or keep it beside the others
ADDED = {
    "jmt-edge synth": "--trials 2 --jobs 1 --quiet",
    "jmt-edge train --recipe biovid-jmt": f"{ONE_EPOCH} --threads 1 --quiet",
    "jmt-edge evaluate": "--threads 1 --quiet",
    "jmt-edge calibrate pain.jmt --data cohort": "--windows 8",
    "jmt-edge build": "--windows 8",
    "jmt-edge bench": "--duration 2 --processes 1 --threads 1",
    "jmt-edge station": "--page 127.0.0.1:0",
}
# devices and addresses that are not here -> what is; {board}, {broker} and {place} are those of the test
HERE = {
    "--camera": {"0": "sim:", "csi:0": "sim:"},
    "--microphone": {"default": "sim:"},
    "--eda": {
        "bitalino:/dev/ttyUSB0": "sim:", "auto:/dev/ttyUSB0": "sim:",
        "bitalino:/tmp/board?channel=3": "bitalino:{place}/tmp/board?channel=3",
    },
    "--person": {
        "bed 1:camera=0,eda=bitalino:/dev/ttyUSB0": "bed 1:camera=sim:,eda=sim:",
        "bed 2:camera=2,eda=bitalino:/dev/ttyUSB1": "bed 2:camera=sim:,eda=sim:",
        "a:camera=rtsp://10.0.0.7/stream,eda=auto:/dev/ttyUSB0,eda-delay=0.1": "a:camera=sim:,eda=sim:,eda-delay=0.1",
        "b:camera=v4l2src device=/dev/video2 ! video/x-raw,width=640 ! videoconvert ! appsink": "b:camera=sim:",
    },
    "--bed": {  # nobody listens there: the beds are lost, as two that are switched off
        "1=https://bed-1.ward:8765": "1=https://127.0.0.1:9",
        "2=https://bed-2.ward:8765": "2=https://127.0.0.1:9",
    },
    "--mqtt": {
        "mqtt://127.0.0.1/ward-3": "mqtt://127.0.0.1:{port}/ward-3",
        "mqtts://station@broker.ward/ward-3": "mqtt://station@127.0.0.1:{port}/ward-3",
    },
}  # fmt: skip
UNTIL_STOPPED = ("jmt-edge sim-board", "jmt-edge station")
MINUTES = {"synth", "train", "evaluate", "calibrate", "build"}


@dataclass(frozen=True)
class Line:
    """One command: its words without variables before it, where its output goes, the text of its whole line."""

    words: list[str]
    out: str
    raw: str

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def starts(self, with_: str) -> bool:
        return re.match(re.escape(with_) + r"($|[ ./]|(?<=,))", self.text) is not None


def blocks(page: Path) -> Iterator[str]:
    """The fenced blocks of commands; those of output are marked `text`."""
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```", page.read_text(), re.M | re.S):
        if found[2] in ("", "sh", "bash"):
            yield found[3]


def commands(page: Path) -> list[Line]:
    """Every command of a page, without comments."""
    found = []
    for block in blocks(page):
        for raw in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(raw, posix=True, punctuation_chars="();<>|&")
            lexer.whitespace_split, lexer.commenters = True, "#"
            each = itertools.groupby(lexer, lambda word: word in (";", "&&", "|", "&"))
            found += [_line(list(words), raw.strip()) for apart, words in each if not apart]
    return found


def _line(words: list[str], raw: str) -> Line:
    out = ""
    if ">" in words:
        at = words.index(">")
        words, out = words[:at] + words[at + 2 :], words[at + 1]
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words and words[0].endswith("/bin/jmt-edge"):
        words = ["jmt-edge", *words[1:]]
    return Line(words, out, raw)


ALL = [(page, line) for page in PAGES for line in commands(page)]
NIGHTLY = ["compare-two-versions"]  # measures three times; tests/bench runs the same commands on less
TRAINING = [page for page in PAGES if any(line.words[1:2] and line.words[1] in MINUTES for line in commands(page))]


def entry(table: Any, line: Line) -> str | None:
    """The longest start in `table` that fits."""
    return max((start for start in table if line.starts(start)), key=len, default=None)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader of the pages has: trained bundles, a clip with sound, EDA files, a key of the page."""
    from jmt_edge.opencv import cv2

    av = pytest.importorskip("av", reason="PyAV is not installed")

    folder = tmp_path_factory.mktemp("inputs")
    for name in ("pain.jmt", "my.jmt", "pain-orin.jmt"):
        shutil.copytree(demo_bundle("pain"), folder / name)
    for name in ("pain-2.jmt", "other.jmt"):
        shutil.copytree(demo_bundle("trimodal"), folder / name)  # another one than pain.jmt
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
    (folder / "station.pw").write_text("a password\n")
    (folder / "tokens").write_text("1=a-token-of-bed-one\n2=a-token-of-bed-two\n")
    (folder / "tokens").chmod(0o600)
    shutil.copyfile(folder / "cert.pem", folder / "ward-ca.pem")
    _xdf(folder / "session.xdf", "EDA left", signal)
    return folder


def _xdf(path: Path, label: str, signal: Any) -> None:
    """An XDF file of one EDA channel at 250 Hz, in µS."""

    def chunk(tag: int, content: bytes) -> bytes:
        return b"\x08" + struct.pack("<QH", len(content) + 2, tag) + content

    info = (
        '<?xml version="1.0"?><info><name>skin</name><type>EDA</type><channel_count>1</channel_count>'
        "<nominal_srate>250</nominal_srate><channel_format>double64</channel_format><created_at>0</created_at><desc>"
        f"<channels><channel><label>{label}</label><unit>uS</unit></channel></channels></desc></info>"
    )
    rows = b"".join(struct.pack("<Bdd", 8, i / 250, value) for i, value in enumerate(signal))
    path.write_bytes(
        b"XDF:"
        + chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>')
        + chunk(2, struct.pack("<I", 1) + info.encode())
        + chunk(3, struct.pack("<IBI", 1, 4, len(signal)) + rows)
    )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Mosquitto, for what the pages say to the broker of a ward."""
    from beds_fixture import Mosquitto

    started = Mosquitto(tmp_path_factory.mktemp("broker"))
    yield started.port
    started.close()


class Reader:
    """Somebody who types the commands of a page, in a folder that holds what the page presupposes."""

    def __init__(self, place: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        self.place, self._call, self._patch, self._port = place, command_line, monkeypatch, port
        self._beside: list[subprocess.Popen[str]] = []
        monkeypatch.chdir(place)
        monkeypatch.setenv("HOME", str(place / "home"))
        for name, value in (("DURATION", "7"), ("SPEED", "max"), ("THREADS", "1")):
            monkeypatch.setenv(f"JMT_EDGE_LIVE_{name}", value)

    def type(self, page: Path) -> None:
        done = ""
        try:
            for line in commands(page):
                if line.words[0] == "jmt-edge":
                    parse(line.words)
                    self._ours(line)
                elif entry(NOT_RUN, line):
                    _check_other(line)
                elif line.starts("python train_mine.py"):
                    self._script(page, line)
                elif line.raw != done:  # a line of several such commands is run as one
                    done = line.raw
                    self._shell(line)
        finally:
            for process in self._beside:
                process.terminate()
                process.wait(30)

    def _ours(self, line: Line) -> None:
        if entry(NOT_RUN, line):
            return
        words = self._here(line)
        if entry(UNTIL_STOPPED, line):
            return self._start(words)
        self._provide(words)
        # a pseudo-terminal delivers in real time
        self._patch.setenv("JMT_EDGE_LIVE_SPEED", "1" if any("tmp/board?" in word for word in words) else "max")
        with pytest.MonkeyPatch.context() as patch:
            if until := entry(UNTIL_TRAINING, line):
                stop_before_training(patch)
            code, out, err = self._call(*words[1:])
        said = f"{line.text}\n{out[-500:]}{err[-1500:]}"
        if refused := entry(REFUSED, line):
            assert code == 2 and REFUSED[refused] in err and "Traceback" not in err, said
            if "--out" in words:  # what the device would have written
                out = self._path(words[words.index("--out") + 1])
                shutil.copytree(demo_bundle("pain"), out, dirs_exist_ok=True)
            return
        allowed = {BEGUN} if until else {0}
        if words[1] == "doctor" or "--fail-over" in words:
            allowed.add(1)  # this machine lacks a sensor's library; two short measurements differ
        assert code in allowed, said
        if line.out:
            self._path(line.out).write_text(out)

    def _start(self, words: list[str]) -> None:
        """Runs it beside what follows, once it has said where it is."""
        process = subprocess.Popen(
            [sys.executable, "-m", "jmt_edge", *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._beside.append(process)
        assert process.stdout is not None
        said = ""
        for said in process.stdout:
            if re.search(r"https?://|^/\S+$", said):
                break
        assert re.search(r"https?://|^/\S+$", said) and process.poll() is None, f"{words}: {said}"
        threading.Thread(target=process.stdout.read, daemon=True).start()

    def _script(self, page: Path, line: Line) -> None:
        """The script that the page shows, up to training."""
        script = next(re.finditer(r"```python\n(.*?)```", page.read_text(), re.S))[1]
        (self.place / line.words[1]).write_text(script)
        words = self._here(line)
        code = (
            f"import sys; sys.path[:0] = [{str(ROOT / 'tests/package')!r}, {str(ROOT / 'examples')!r}, '.']\n"
            "import pytest, test_docs_commands, runpy\n"
            "test_docs_commands.stop_before_training(pytest.MonkeyPatch())\n"
            "test_docs_commands.stop_before_scoring(pytest.MonkeyPatch())\n"
            f"sys.argv = {words[1:]!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == BEGUN, f"{line.text}\n{done.stderr[-1500:]}"

    def _shell(self, line: Line) -> None:
        """A program of the system: the line as it is, but in the test's folder."""
        text = line.raw.replace("/etc/", f"{self.place}/etc/")
        for name in re.findall(r"(?<![\w/])(?:deploy|training)/[\w./-]+", text):
            text = text.replace(name, str(ROOT / name))
        (self.place / "etc/jmt-edge").mkdir(parents=True, exist_ok=True)
        (self.place / "etc/systemd/system").mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["bash", "-ec", f"{text}\nenv -0 >&2"], capture_output=True, text=True)
        assert done.returncode == 0, f"{line.raw}: {done.stderr}"
        if line.words[0] == "export":
            for name, value in (item.split("=", 1) for item in done.stderr.split("\0") if "=" in item):
                if name == line.words[1].partition("=")[0]:
                    self._patch.setenv(name, value)

    def _here(self, line: Line) -> list[str]:
        """The words with the devices, addresses, sizes and folders of the test."""
        done: list[str] = []
        for before, word in zip(["", *line.words], line.words):
            word = SMALLER.get(before, {}).get(word, word)
            found = HERE.get(before, {}).get(word)
            if found is not None:
                word = found.format(place=self.place, port=self._port)
            elif before == "--page" and ":" in word:
                word = "127.0.0.1:0"
            elif word.startswith(("/etc/", "/tmp/")):
                word = str(self._path(word))
            if before == "--page" and not re.match(r"[\d.]+:\d", word):
                done.append("127.0.0.1:0")
            done.append(word)
        if done[-1] == "--page":
            done.append("127.0.0.1:0")
        added = shlex.split(ADDED.get(entry(ADDED, line) or "", ""))
        for option, *_ in itertools.groupby(added):
            if option.startswith("--") and option != "--set" and option in done:  # what the page says holds
                at = added.index(option)
                del added[at : at + 2]
        return done if "--predict" in done or "--check" in done else [*done, *added]

    def _path(self, word: str) -> Path:
        path = self.place / word.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _provide(self, words: list[str]) -> None:
        """What a command needs and its page takes from another page, or from a person."""
        kept = words[2] if words[1] in ("replay", "sign") else ""
        if kept and not Path(kept).exists():
            assert self._call("live", "--record", kept, "--record-raw", "face,eda")[0] == 0
        if "replay:DIR" in words and not Path("DIR").exists():
            code, _, err = self._call("live", "--task", "trimodal", "--record", "DIR", "--record-raw", "face,voice,eda")
            assert code == 0, err
        if words[1] == "personalise" and "--undo" not in words:
            rated_days(Path("pain.jmt"), "day1", "day2")
        if "jmt-edge.toml" in " ".join(words):
            made = self._path("etc/jmt-edge/jmt-edge.toml")
            example = (ROOT / "deploy/systemd/jmt-edge.toml").read_text()
            example = example.replace("camera = 0 ", 'camera = "sim:" ').replace('"auto:/dev/ttyUSB0"', '"sim:"')
            made.write_text(example.replace("127.0.0.1:8765", "127.0.0.1:0"))


BEGUN = 77  # the exit code of a command that has come to its training


def stop_before_training(patch: pytest.MonkeyPatch) -> None:
    """From here on a command that would cut clips and train ends with the exit code BEGUN."""

    def begun(*_: object, **__: object) -> None:
        raise SystemExit(BEGUN)

    for module in ("search", "suite", "suite_seeds"):
        patch.setattr(importlib.import_module(f"jmt_edge.training.{module}"), "prepare", begun)
    patch.setattr("jmt_edge.training.search.foresee", begun)  # the runs that the next commands need lie there already


def stop_before_scoring(patch: pytest.MonkeyPatch) -> None:
    """The same for `evaluate`, where a test needs only to know that a system of the reader's own is found."""
    patch.setattr("jmt_edge.training.evaluation.evaluate", lambda *_, **__: sys.exit(BEGUN))


def rated_days(bundle: Path, *folders: str) -> None:
    """Recordings with ratings of a person whose face shows nothing, as the how-to makes them in two days."""
    import test_recording_personalise as people

    from jmt_edge.engine.bundle import load_bundle

    for seed, folder in enumerate(folders):
        shutil.rmtree(folder, ignore_errors=True)
        people.record(Path(folder), load_bundle(bundle), people.Someone(seed, "stoic"))


def lay_out(inputs: Path, place: Path, page: Path) -> Path:
    """A folder with what the page presupposes, without what it makes itself."""
    shutil.copytree(inputs, place, dirs_exist_ok=True)
    for line in commands(page):
        made = [after for option, after in itertools.pairwise(line.words) if option == "--out"]
        for name in [*made, *(line.words[-1:] if line.starts("cp -r") else [])]:
            shutil.rmtree(place / name, ignore_errors=True)
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.nightly] if page.stem in NIGHTLY else [], id=page.stem)
        for page in PAGES
        if page not in TRAINING
    ],
)
def test_the_commands_of_a_page(
    page: Path, inputs: Path, tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, broker: int
) -> None:
    Reader(lay_out(inputs, tmp_path, page), command_line, monkeypatch, broker).type(page)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_commands_of_the_pages_that_train(
    inputs: Path, tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, broker: int
) -> None:
    """One after the other, because the later ones begin with what the first has trained; nothing is trained twice."""
    monkeypatch.setenv("JMT_EDGE_CACHE", str(tmp_path / "cache"))
    done: dict[str, Path | None] = {}  # what a command of minutes wrote on the page before

    def once(*words: object) -> tuple[int, str, str]:
        text = " ".join(map(str, words))
        out = Path(str(words[words.index("--out") + 1])) if "--out" in words else None
        if text in done:
            if out is not None:
                shutil.copytree(str(done[text]), out, dirs_exist_ok=True)
            return 0, "", ""
        found = command_line(*words)
        if words[0] in {*MINUTES, "bench"} and found[0] == 0:
            done[text] = out and out.resolve()
        return found

    first, *others = TRAINING
    made = lay_out(inputs, tmp_path / first.stem, first)
    Reader(made, once, monkeypatch, broker).type(first)
    assert command_line("synth", "painmonit", "--subjects", "2", "--trials", "2", "--jobs", "1", "--quiet", "--out",
                        made / "PAINMONIT")[0] == 0  # fmt: skip
    for page in others:
        place = lay_out(inputs, tmp_path / page.stem, page)
        text = page.read_text()
        for name, of in (("cohort", "cohort"), ("DATA", "cohort"), ("PAINMONIT", "PAINMONIT"), ("RUN", "runs/jmt")):
            if f"--out {name}" not in text:  # what the page writes is not there before
                shutil.copytree(made / of, place / name, dirs_exist_ok=True)
        if page.stem == "add-a-recipe":
            shutil.copytree(made / "runs/jmt", place / "runs/mine")
        Reader(place, once, monkeypatch, broker).type(page)


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


def _check_other(line: Line) -> None:
    """What can be said about a line that is not run."""
    words, text = line.words, line.text
    program, rest = words[0], words[1:]
    named = [word for word in rest if word.startswith(("deploy/", "training/", "tests/", "scripts/"))]
    assert all((ROOT / word).exists() for word in named), text
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.M), text
    elif program == "systemctl" and rest[-1] != "daemon-reload":
        assert (ROOT / "deploy/systemd" / f"{rest[-1]}.service").is_file(), text
    elif program.endswith("pip"):
        _check_pip(rest, text)
    elif program.endswith(("python", "python3")) and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1].split(".")[0]) or (ROOT / rest[1].split(".")[0]).is_dir(), text
        assert "jmt_edge" not in rest[1] or importlib.util.find_spec(rest[1]), text
    elif program.endswith(("python", "python3")):
        compile(rest[1], text, "exec")


def _check_pip(rest: list[str], text: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"jmt[-_]edge(?:-\S*?\.whl)?\[([\w,-]+)\]", text):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), text
    if "-c" in rest:
        assert (ROOT / "deploy" / "constraints" / rest[rest.index("-c") + 1]).is_file(), text


def test_what_is_not_run_is_listed_with_its_reason_and_number() -> None:
    """A line that is added to a page is run, or is a decision here."""
    found = Counter(start for _, line in ALL if (start := entry(NOT_RUN, line)))
    assert found == {start: number for start, (number, _) in NOT_RUN.items()}
    programs = {line.words[0] for _, line in ALL if entry(NOT_RUN, line) is None}
    assert programs == {"jmt-edge", "python", "cp", "mkdir", "install", "tail", "echo", "umask", "export"}
    for _, reason in NOT_RUN.values():
        for name in re.findall(r"(?:tests|kernels)/[\w/]*(?:\.py)?", reason):
            assert (ROOT / name).exists(), name


def test_no_entry_of_the_tables_is_without_a_line() -> None:
    lines = [line for _, line in ALL]
    for table in (REFUSED, UNTIL_TRAINING, ADDED, UNTIL_STOPPED):
        for start in table:
            assert any(line.starts(start) for line in lines), start
    words = [pair for line in lines for pair in itertools.pairwise(line.words)]
    for options in (HERE, SMALLER):
        for option, values in options.items():
            assert {(option, value) for value in values} <= set(words), option
    ours = [line for line in lines if line.words[0] == "jmt-edge"]
    assert len(ours) > 120 and sum(entry(NOT_RUN, line) is None for line in ours) == len(ours) - 2


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_a_command_in_the_text_names_options_that_exist(page: Path) -> None:
    context = click.Context(cli, info_name="jmt-edge")
    for text in re.findall(r"`jmt-edge ([a-z][^`]*)`", page.read_text()):
        words = text.split()
        command = cli.get_command(context, words[0])
        assert command is not None, text
        while isinstance(command, click.Group) and len(words) > 1:
            words = words[1:]
            if words[0] == "...":
                break
            command = command.get_command(context, words[0].split("|")[0])
            assert command is not None, text
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        said = {word.rstrip(",.;").partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
        assert said <= known | {"--help"}, text


@pytest.mark.parametrize(
    "line", ["jmt-edge live --camra 0", "jmt-edge fly", "jmt-edge live --speed 2", "jmt-edge config fix"]
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises((pytest.fail.Exception, AssertionError)):
        parse(line.split())
