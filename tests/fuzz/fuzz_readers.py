"""Every reader of the product with good inputs for it, and what it promises about what it takes.

A reader is called with the kind of its input (which file of a recording, which board, which suffix) and the bytes.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import struct
import sys
import tempfile
import wave
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from jmt_edge.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
sys.path += [str(ROOT / "tests" / part) for part in ("media", "live", "eda_capture")]


class Reader:
    """name: of the reader. tokens: words that it knows. `read` raises UserError for what it refuses."""

    name = ""
    tokens: tuple[bytes, ...] = ()
    warms = True  # reading its good inputs once, before memory is measured, ends

    @cached_property
    def seeds(self) -> dict[str, bytes]:
        """Good inputs by their kind."""
        with tempfile.TemporaryDirectory() as folder:
            return self.make(Path(folder))

    def make(self, folder: Path) -> dict[str, bytes]:
        raise NotImplementedError

    def open(self, scratch: Path) -> None:
        """Called once in the process that reads; `scratch` is a folder for its files."""
        self.scratch = scratch

    def read(self, name: str, data: bytes) -> None:
        raise NotImplementedError

    def file(self, name: str, data: bytes) -> Path:
        """`data` in a file called `name`."""
        path = self.scratch / name
        path.write_bytes(data)
        return path


# ---- serial boards


class Boards(Reader):
    """Every protocol's decoder. Whatever arrives, and in whatever pieces, the samples are the same."""

    name = "boards"
    tokens = (b"t_ms,uS\n", b"t_us,uS\n", b"uS\n", b"GSR : ", b"nan", b"ovf", b"BITalino", b"\xff\x02", b"\x1c")

    def make(self, folder: Path) -> dict[str, bytes]:
        from jmt_edge.capture.boards import FIRMWARE
        from jmt_edge.capture.boards.firmware import bitalino_frame

        def sent(board: Any, start: bytes, n: int) -> bytes:
            board.reset()
            board.receive(start)
            return b"".join(board.sample(i, i / 100, 5 + i / 50) for i in range(n))

        six = b"".join(bitalino_frame(i, 5, [100, 200, 300, 400, 33, i % 64]) for i in range(12))
        three = b"".join(bitalino_frame(i, 0, [0, 0, 300 + i]) for i in range(12))
        one = b"".join(bitalino_frame(i, 15, [400 + i]) for i in range(12))
        grove, sketch = FIRMWARE["grove"](), FIRMWARE["csv"]()
        grove.reset(), sketch.reset()
        packets = b"".join(
            b"\0" + (1000 + 256 * i).to_bytes(3, "little") + struct.pack("<HH", 0x4800 + i, 7) for i in range(8)
        )
        lines = b"".join(grove.sample(i, i / 20, 5.0) for i in range(12))
        rows = b"t_ms,uS\r\n" + b"".join(sketch.sample(i, i / 100, 5.0) for i in range(12))
        return {
            "bitalino 1": one, "bitalino 3": three, "bitalino 6": six, "bitalino original": one, "shimmer3": packets,
            "grove": lines, "grove cal": lines, "csv": rows, "csv bare": b"5.01\n5.02\n5.03\n4.99\n", "csv adc": rows,
            "csv us": b"100,5.0\n200,5.1\n300,5.2\n400,5.3\n", "inquiry": bytes([0, 1, 0, 0, 0, 0, 2, 1, 0x1C, 0x12]),
            "auto": lines, "auto csv": rows,
        }  # fmt: skip

    def decoder(self, name: str) -> Any:
        from jmt_edge.capture.eda.bitalino import BitalinoDecoder
        from jmt_edge.capture.eda.csv import CsvDecoder
        from jmt_edge.capture.eda.grove import GroveDecoder
        from jmt_edge.capture.eda.shimmer3 import Layout, Shimmer3Decoder
        from jmt_edge.media.units import conversion

        return {
            "bitalino 1": lambda: BitalinoDecoder(1, 0, 100),
            "bitalino 3": lambda: BitalinoDecoder(3, 2, 1000),
            "bitalino 6": lambda: BitalinoDecoder(6, 5, 10),
            "bitalino original": lambda: BitalinoDecoder(1, 0, 1000, "original"),
            "shimmer3": lambda: Shimmer3Decoder(Layout(256, (0x1C, 0x12))),
            "grove": GroveDecoder,
            "grove cal": lambda: GroveDecoder(500),
            "csv": CsvDecoder,
            "csv bare": lambda: CsvDecoder(50.0),
            "csv adc": lambda: CsvDecoder(unit=conversion({"unit": "adc", "bits": "10", "gain": "2"}, "fuzz")),
            "csv us": lambda: CsvDecoder(time="us"),
        }[name]()

    def read(self, name: str, data: bytes) -> None:
        if name == "inquiry":
            from jmt_edge.capture.eda.shimmer3 import Layout, Shimmer3Decoder

            Shimmer3Decoder(Layout.from_inquiry(data)).feed(data)
            return
        if name.startswith("auto"):
            from jmt_edge.capture.eda.identify import text_protocol

            text_protocol(data, 115200)
            return
        from jmt_edge.capture.clock import Timeline

        whole = self.decoder(name)
        counts, values, lost = self.fed(whole, [data])
        assert len(counts) == len(values) and lost >= 0 and not np.isinf(values).any()
        assert not (values < 0.03).any(), "a value below what skin has"
        if data[-1:] < b"\x40" and (whole.tick or name.startswith("grove")):
            # a counter may repeat or step back, as the bytes do; times never
            line = Timeline(whole.tick, cycle=whole.cycle, repeats=whole.repeats)
            times, kept = line.push(counts, values, 100.0, 0)
            assert len(times) == len(kept) and (np.diff(times) > 0).all(), "samples go back in time"
        if data[-1:] < b"\x20":  # in an eighth of the inputs
            cut = len(data) // 3 | 1
            parts = [data[i : i + cut] for i in range(0, len(data), cut)]
            again = self.fed(self.decoder(name), parts)
            assert np.array_equal(again[0], counts) and np.array_equal(again[1], values, equal_nan=True), "pieces"

    @staticmethod
    def fed(decoder: Any, parts: list[bytes]) -> tuple[Any, Any, int]:
        found = [decoder.feed(part) for part in parts]
        while "csv" in type(decoder).__name__.lower() and decoder._queue:
            found.append(decoder.feed(b""))
        return (
            np.concatenate([f.counts for f in found]) if found else np.empty(0, np.int64),
            np.concatenate([f.values for f in found]) if found else np.empty(0, np.float32),
            sum(f.lost for f in found),
        )


# ---- lines and texts


class Marks(Reader):
    """Standard input: an odd line costs that line, and never a mark before or after it."""

    name = "marks"
    tokens = (b"mark ", b"rate ", b"10", b"11", "\u0663".encode(), b"\r")

    def make(self, folder: Path) -> dict[str, bytes]:
        return {"lines": b"mark injection given\n7\nrate 10\nmark \n0\n", "one": b"mark turned over\n"}

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.controls import Controls
        from jmt_edge.live.outputs import parse_mark, read_marks

        controls = Controls()
        lines = io.TextIOWrapper(io.BytesIO(data + b"\nmark last\n"), "utf-8", "replace")
        if data[:1] in b"m":  # the thread costs most of the time
            read_marks(lines, controls).join()
            marks = controls.take_marks()
            assert marks[-1][1] == "last" or len(marks) == controls.MAX_WAITING, "the last mark is lost"
            return
        for line in lines:
            with suppress(ConfigError):
                controls.mark(*parse_mark(line))
        assert controls.take_marks()[-1][1] == "last"


class Settings(Reader):
    """What a user writes on the command line: sources, addresses, options."""

    name = "settings"
    tokens = (
        b"sim:", b"bitalino:", b"shimmer3:", b"grove:", b"csv:", b"auto:", b"lsl:", b"brainflow:", b"csi:", b"rtsp://",
        b"?", b"&", b"=", b"rate=", b"seed=", b"fps=", b"width=", b"rotate=", b"unit=", b"cal=", b"gain=", b"bits=",
        b"vcc=", b"time=", b"column=", b"decimal=", b"sep=", b"!", b"~", b"%", b"none", b"replay:",
    )  # fmt: skip

    def make(self, folder: Path) -> dict[str, bytes]:
        specs = {
            "face": ["sim:seed=3&fps=25", "0?width=640&height=480&fps=30&rotate=90", "csi:0?fps=30", "x.mp4?rotate=180",
                     "rtsp://host/path", "videotestsrc ! appsink"],
            "voice": ["sim:seed=3", "0?rate=44100", "hw:1,0", "x.wav"],
            "eda": ["sim:seed=3", "bitalino:/dev/x?channel=3&rate=1000&generation=revolution",
                    "shimmer3:/dev/x?rate=51.2", "grove:/dev/x?cal=512&baud=9600",
                    "csv:/dev/x?baud=9600&unit=adc&bits=10&vcc=3.3&gain=2&cal=500",
                    "auto:/dev/x", "/dev/ttyUSB0", "lsl:type=EDA&name=x",
                    "brainflow:emotibit?unit=uS", "x.csv?rate=4&sep=;"],
            "page": ["127.0.0.1:8765", "[::1]:80", ":9", "localhost"],
            "options": ['{"hop": 0.5, "duration": 3.0, "smooth": 1.0, "realtime": false}'],
            "scenario": ["sim:seed=3&responder=1&fault=dark&fault_at=2&fault_for=3&fps=25&size=64x48"],
        }  # fmt: skip
        return {f"{kind} {i}": text.encode() for kind, texts in specs.items() for i, text in enumerate(texts)}

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.capture import open_source
        from jmt_edge.live.loop import Options
        from jmt_edge.live.page.security import parse_address

        kind, text = name.partition(" ")[0], data.decode("utf-8", "surrogateescape")
        if kind == "page":
            host, port = parse_address(text)
            assert host and 0 <= port <= 65535
        elif kind == "options":
            try:
                plain = json.loads(text)
                options = Options(**{k: v if isinstance(v, (bool, str)) else float(v) for k, v in plain.items()})
            except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
                return  # no command line can say that
            numbers = options.hop, options.smooth, 0.0 if options.duration is None else options.duration
            if not all(isinstance(x, (int, float)) for x in numbers):
                return
            options.check({"face": SimpleNamespace(realtime=False)})  # type: ignore[dict-item]
        else:
            open_source({"scenario": "face"}.get(kind, kind), text)


class Recipes(Reader):
    name = "recipes"
    tokens = (b"lr", b"fusion", b"stages", b"masking", b"modalities", b"face", b"eda", b"second", b"demo")

    def make(self, folder: Path) -> dict[str, bytes]:
        from jmt_edge.training import recipes

        files = {n: (recipes._FOLDER / f"{n}.json").read_bytes() for n in ("biovid-jmt", "affwild2-rjcma", "demo-pain")}
        return {**files, "override": b"fusion.lr=1e-4", "override list": b"modalities=face,eda"}

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.training import recipes

        if name.startswith("override"):
            recipes.load_recipe("biovid-jmt", [data.decode("utf-8", "replace")])
            return
        path = self.file("a.json", data)
        recipes.load_recipe(str(path), variant="demo" if data[-3:-2] == b"}" else "")


# ---- bundles


class Bundles(Reader):
    """A bundle whose hashes fit its content: what a reader meets that trusts the hash."""

    name = "bundle"
    tokens = (b"onnx", b"files", b"networks", b"engines", b"novelty", b"calibration", b"temperature", b"schema")

    @cached_property
    def whole(self) -> dict[str, bytes]:
        from live_fixture import hand_bundle

        from jmt_edge.engine.novelty import Novelty, save_novelty
        from jmt_edge.tasks import get_task

        with tempfile.TemporaryDirectory() as folder:
            bundle = hand_bundle(get_task("pain", "demo"), Path(folder) / "a.jmt")
            files = {p.name: p.read_bytes() for p in bundle.path.iterdir()}
        density = Novelty(np.zeros(3, np.float32), np.eye(3, dtype=np.float32), 2.0)
        files["novelty.safetensors"] = save_novelty({"eda": density})
        manifest = json.loads(files["manifest.json"])
        manifest["novelty"] = {"file": "novelty.safetensors"}
        manifest["calibration"] = {"temperature": 1.2}
        files["manifest.json"] = json.dumps(manifest, indent=1).encode()
        del files["manifest.sha256"]
        return files

    def make(self, folder: Path) -> dict[str, bytes]:
        return {n: d for n, d in self.whole.items() if n in ("manifest.json", "novelty.safetensors")}

    def write(self, name: str, data: bytes) -> Path:
        import hashlib

        from jmt_edge.plain_files import checksum

        folder = self.scratch / "a.jmt"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files = {**self.whole, name: data}
        if name != "manifest.json":
            manifest = json.loads(files["manifest.json"])
            manifest["files"] = {n: hashlib.sha256(files[n]).hexdigest() for n in manifest["files"]}
            if "novelty" in manifest:
                manifest["files"]["novelty.safetensors"] = hashlib.sha256(files["novelty.safetensors"]).hexdigest()
            files["manifest.json"] = json.dumps(manifest).encode()
        else:
            try:  # the hashes of what is there, where the damage left their place
                manifest = json.loads(data)
                known = {n: hashlib.sha256(d).hexdigest() for n, d in files.items() if n != "manifest.json"}
                listed = manifest["files"]
                manifest["files"] = {**listed, **{n: d for n, d in known.items() if n in listed or n[0] == "n"}}
                files["manifest.json"] = json.dumps(manifest).encode()
            except (ValueError, TypeError, KeyError, RecursionError, UnicodeError):
                pass
        for file, content in files.items():
            (folder / file).write_bytes(content)
        (folder / "manifest.sha256").write_bytes(checksum(files["manifest.json"], "manifest.json"))
        return folder

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.engine.bundle import cpu_graph, load_bundle

        bundle = load_bundle(self.write(name, data))
        bundle.novelty()
        assert bundle.temperature > 0 and bundle.name and isinstance(bundle.demo, bool)
        for network in (*bundle.task.names, "fusion"):
            cpu_graph(bundle, network)
            bundle.exported_graph(network)


class Onnx(Bundles):
    """A graph of a bundle, opened by onnxruntime and run once."""

    name = "onnx"
    tokens = (b"ReduceMean", b"Loop", b"If", b"Constant", b"clip", b"\x7a\x02", b"Tile", b"Range", b"Expand")

    def make(self, folder: Path) -> dict[str, bytes]:
        return {n: d for n, d in self.whole.items() if n.endswith(".onnx")}

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.engine.bundle import load_bundle
        from jmt_edge.engine.session import session

        session(load_bundle(self.write(name, data)).graph(name), 1)


class Safetensors(Reader):
    """Weights in safetensors: folded fusion, networks, novelty."""

    name = "safetensors"
    tokens = (b"dtype", b"F32", b"F16", b"BF16", b"I64", b"shape", b"data_offsets", b"__metadata__", b"plan")

    def make(self, folder: Path) -> dict[str, bytes]:
        from safetensors.numpy import save

        from jmt_edge.engine.novelty import Novelty, save_novelty

        density = Novelty(np.zeros(3, np.float32), np.eye(3, dtype=np.float32), 2.0)
        small = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}
        return {
            "novelty": save_novelty({"eda": density}), "weights": save(small), "checkpoint": save(small),
            "folded": _folded(),
        }  # fmt: skip

    def read(self, name: str, data: bytes) -> None:
        from torch import nn

        from jmt_edge.engine.novelty import read_novelty
        from jmt_edge.models.folding import FoldedPlan
        from jmt_edge.models.pretrained import read_checkpoint
        from jmt_edge.tasks import get_task
        from jmt_edge.training.networks import load_weights

        if name == "novelty":
            try:
                read_novelty(data, get_task("pain", "demo"))
            except ValueError as error:  # its contract; the bundle makes the sentence
                raise ConfigError(str(error)) from None
        elif name == "folded":
            FoldedPlan.from_safetensors(data)
        elif name == "weights":
            load_weights(nn.ModuleDict({"fc": nn.Linear(3, 2)}), self.file("a.safetensors", data))
        else:
            read_checkpoint(self.file("a.safetensors", data))


def _folded() -> bytes:
    import torch
    from safetensors.numpy import save

    from jmt_edge.models import JMT
    from jmt_edge.models.folding import fold

    torch.manual_seed(0)
    plan = fold(JMT(("face", "eda"), 4, ("pain",)).eval())
    tensors, metadata = plan.to_safetensors_dict()
    return save(tensors, metadata)


class Checkpoints(Reader):
    """PyTorch's files: read without running code."""

    name = "checkpoint"
    tokens = (b"torch\n", b"_rebuild_tensor_v2", b"FloatStorage", b"builtins\n", b"eval", b"posix\nsystem\n", b"cpu")

    def make(self, folder: Path) -> dict[str, bytes]:
        import torch

        small = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
        torch.save(small, folder / "a.pt")
        torch.save({"state_dict": small, "epoch": 3, "best": 0.5}, folder / "b.pt")
        torch.save(small, folder / "c.pt", _use_new_zipfile_serialization=False)
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.models.pretrained import read_checkpoint

        read_checkpoint(self.file(name, data))


class Windows(Reader):
    """Saved windows of a calibration: npz."""

    name = "npz"
    tokens = (b"descr", b"'<f4'", b"'|O'", b"fortran_order", b"shape", b"clip_eda.npy", b"PK\x03\x04", b"PK\x01\x02")

    def make(self, folder: Path) -> dict[str, bytes]:
        from jmt_edge.clips.window_set import random_windows
        from jmt_edge.tasks import get_task

        task = get_task("pain", "demo")
        windows = replace(random_windows(task, 1), targets={"pain": np.ones(1)}, subjects=np.array(["a"]))
        windows.save(folder / "a.npz", task)
        with np.load(folder / "a.npz") as packed:  # a black face is small
            arrays = {k: packed[k] * 0 if k == "clip_face" else packed[k] for k in packed.files}
        np.savez_compressed(folder / "b.npz", **arrays)
        replace(windows, clips={"eda": windows.clips["eda"]}).save(folder / "a.npz", task)
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.clips.window_set import WindowSet
        from jmt_edge.tasks import get_task

        found = WindowSet.load(self.file(name, data))
        found.check(get_task("pain", "demo"))


# ---- recordings


class Recordings(Reader):
    """One damaged file of a recording; every reader of recordings then reads the whole."""

    name = "recording"
    tokens = (
        b'"chunk"', b'"eda"', b'"face"', b'"voice"', b'"window"', b'"skip"', b'"gap"', b'"mark"', b'"status"', b'"t0"',
        b'"ulps"', b'"n"', b'"rate"', b'"closed"', b'"raw"', b'"hop"', b"NaN", b"-Infinity", b"RIFF", b"data",
    )  # fmt: skip

    @cached_property
    def whole(self) -> dict[str, bytes]:
        from live_fixture import hand_bundle

        from jmt_edge.capture.base import State, Status
        from jmt_edge.media.chunk import Chunk
        from jmt_edge.observer import Mark, RunInfo
        from jmt_edge.recording.recorder import Recorder
        from jmt_edge.result import Quality, Result
        from jmt_edge.tasks import get_task

        names = ("face", "voice", "eda")
        with tempfile.TemporaryDirectory() as place:
            bundle = hand_bundle(get_task("trimodal", "demo"), Path(place) / "t.jmt")
            folder = Path(place) / "run"
            recorder = Recorder(folder, bundle, names)
            recorder.on_start(RunInfo(bundle, "onnxruntime", {}, 0.5, False, 0.0, dict.fromkeys(names, "x")))
            quality = {n: Quality(True, "", 0.5) for n in names}
            image = np.zeros((16, 16, 3), np.uint8)
            for i in range(1, 5):
                t = (i - 1) / 2 + np.arange(10) / 20
                recorder.on_chunk("eda", Chunk(t, (2 + t).astype(np.float32), 20.0))
                recorder.on_chunk("face", Chunk(t[:2], [image + i, image], 4.0))
                recorder.on_chunk("voice", Chunk(t[0] + np.arange(64) / 44_100, np.zeros(64, np.float32), 44_100.0))
                recorder.on_mark(Mark(i / 2, f"mark {i}", i))
                recorder.on_status(dict.fromkeys(names, Status(State.STREAMING)))
                values = {"pain": i / 10, "valence": 0.0, "arousal": 0.0}
                share = dict.fromkeys(names, 1 / 3)
                recorder.on_result(Result(i, i / 2, "trimodal", values, "", quality, share, {"total": 1.0}, 0, "b"))
            recorder.close()
            return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}

    def make(self, folder: Path) -> dict[str, bytes]:
        return {name: data for name, data in self.whole.items() if data}

    def open(self, scratch: Path) -> None:
        super().open(scratch)
        self.folder = scratch / "recordings" / "run"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for file, content in self.whole.items():
            (self.folder / file).write_bytes(content)

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.live.page.recordings import Recordings as Page
        from jmt_edge.recording.export import EXPORTERS, tables
        from jmt_edge.recording.reader import RecordedSource, Recording

        (self.folder / name).write_bytes(data)
        try:
            recording = Recording(self.folder)
            list(recording.events())
            tables(recording)
            for modality in recording.manifest["raw"]:
                source = RecordedSource(modality, self.folder)
                source.open(0.0)
                while source.status().state.value != "ended":
                    source.read(np.inf)
                source.close()
            page = Page(self.folder.parent)
            json.dumps(page.listing())
            json.dumps(page.view("run"), allow_nan=False)
            shutil.rmtree(out := self.scratch / "out", ignore_errors=True)
            out.mkdir()
            if len(data) % 16 == 0:  # slow
                for kind, export in EXPORTERS.items():
                    export(recording, out / kind)
        finally:
            (self.folder / name).write_bytes(self.whole[name])


# ---- media


class Sounds(Reader):
    """Sound in every format; samples are finite and in order of time."""

    name = "sound"
    tokens = (b"RIFF", b"WAVE", b"fmt ", b"data", b"fLaC", b"ID3", b"OggS", b"moov", b"mdat", b"stts", b"stsz", b"esds")

    def make(self, folder: Path) -> dict[str, bytes]:
        from sound_files import tones, write_sound

        x = tones(0.3, 8000, 1)
        write_sound(folder / "a.flac", "flac", (x * 3e4).astype(np.int16), 8000, layout="mono", sample_format="s16")
        write_sound(folder / "a.mp3", "libmp3lame", x, 8000, layout="mono")
        write_sound(folder / "a.m4a", "aac", x, 8000, layout="mono")
        write_sound(folder / "a.opus", "libopus", x, 8000, layout="mono", sample_format="flt")
        write_sound(folder / "a.mp4", "aac", x, 8000, layout="mono", picture=0.0)
        for width, name in ((1, "b8.wav"), (2, "b16.wav"), (3, "b24.wav")):
            with wave.open(str(folder / name), "wb") as out:
                out.setnchannels(2)
                out.setsampwidth(width)
                out.setframerate(8000)
                out.writeframes(np.random.default_rng(1).bytes(width * 2 * 300))
        data = (x[:300, 0]).astype("<f4").tobytes()
        header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, 8000, 32000, 4,
                             32, b"data", len(data))  # fmt: skip
        (folder / "float.wav").write_bytes(header + data)
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.media.sound import sound_blocks

        last, count = -np.inf, 0
        for t, samples in itertools.islice(sound_blocks(self.file(name, data), []), 3000):
            assert np.isfinite(t) and t >= last - 0.03, "sound goes back in time"
            assert samples.dtype == np.float32 and samples.ndim == 1
            last, count = t + len(samples) / 44_100, count + 1
        assert count


class Videos(Reader):
    """Video by OpenCV or PyAV, and a recording's own; times increase."""

    name = "video"
    tokens = (b"ftyp", b"moov", b"mdat", b"trak", b"stts", b"stsc", b"avcC", b"\x1aE\xdf\xa3", b"RIFF", b"AVI ",
              b"\0\0\0\1\x67", b"\0\0\1\x65", b"FFV1", b"idx1", b"movi")  # fmt: skip

    def make(self, folder: Path) -> dict[str, bytes]:
        import av

        rng, scheduling = np.random.default_rng(0), (os.sched_getscheduler(0), os.sched_getparam(0))
        still = np.repeat(rng.integers(0, 255, (1, 64, 3), np.uint8), 48, 0)
        for name, codec, form in (
            ("h264.mp4", "libx264", "yuv420p"), ("a.h264", "libx264", "yuv420p"), ("mpeg4.avi", "mpeg4", "yuv420p"),
            ("mjpeg.mkv", "mjpeg", "yuvj420p"), ("av1.mp4", "libsvtav1", "yuv420p"),
            ("vp9.webm", "libvpx-vp9", "yuv420p"), ("own.mkv", "ffv1", "bgr0"), ("a.mjpeg", "mjpeg", "yuvj420p"),
            ("hevc.mp4", "libx265", "yuv420p"),
        ):  # fmt: skip
            options = {"format": "h264"} if name == "a.h264" else {"format": "mjpeg"} if name == "a.mjpeg" else {}
            with av.open(str(folder / name), "w", **options) as out:
                stream: Any = out.add_stream(codec, rate=25)
                stream.width, stream.height, stream.pix_fmt = 64, 48, form
                stream.codec_context.thread_count = 1
                for i in range(6):
                    frame = av.VideoFrame.from_ndarray(np.roll(still, i, 1), format="bgr24")
                    out.mux(stream.encode(frame))
                out.mux(stream.encode(None))
        os.sched_setscheduler(0, *scheduling)  # run by root, SVT-AV1 makes its caller a real-time thread: others starve
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.media.video import VideoReader, lossless_frames

        path = self.file(name, data)
        if name == "own.mkv":
            times = [t for t, image in itertools.islice(lossless_frames(path), 500) if image.size]
            return
        raw = name.endswith(("h264", "mjpeg"))
        with closing(VideoReader(path, 25.0 if raw else None)) as reader:
            times = []
            while reader.time is not None and len(times) < 500:
                times.append(reader.time)
                image = reader.image()
                assert image is None or (image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3)
                reader.advance()
        assert np.isfinite(times).all() and (np.diff(times) > 0).all(), "frames go back in time"


class Images(Reader):
    name = "image"
    tokens = (
        b"\xff\xd8\xff",
        b"\xff\xc0",
        b"\xff\xda",
        b"IHDR",
        b"IDAT",
        b"PLTE",
        b"IEND",
        b"BM",
        b"RIFF",
        b"WEBP",
        b"II*\0",
    )

    def make(self, folder: Path) -> dict[str, bytes]:
        from jmt_edge.opencv import cv2

        x = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
        made = {}
        for kind in ("jpg", "png", "bmp", "webp", "tiff", "ppm"):
            done, data = cv2.imencode(f".{kind}", x)
            if done:
                made[f"a.{kind}"] = data.tobytes()
        return made

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.media.video import read_image

        image = read_image(self.file(name, data))
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size


# ---- EDA files and tables


class EdaFiles(Reader):
    """Text and binary EDA files; times increase from 0, and there is at least one number."""

    name = "eda text"
    binary = False
    tokens = (
        b"time", b"t_ms", b"uS", b"gsr", b"eda", b"EDA", b"timestamp", b"# OpenSignals Text File Format\n",
        b"# EndOfHeader\n", b"sampling rate", b"resolution", b"column", b"kOhm", b"volts", b"arduino_ts", b"NA",
        b"2024-01-01T00:00:00", b"12:34:56", b"1700000000.0", b"1,5;", b"\t",
    )  # fmt: skip

    def make(self, folder: Path) -> dict[str, bytes]:
        n = 60
        t = np.arange(n) / 50
        s = 5 + 0.3 * np.sin(t)
        rows = "".join(f"{a:.3f},{b:.4f}\n" for a, b in zip(t, s))
        biovid = "".join(f"{int(a * 1e6)}\t{b:.4f}\t0.1\t0.2\t0.3\t0.4\n" for a, b in zip(t, s))
        header = {"20:16:07:18:13:61": {"sensor": ["RAW", "EDABITREV"], "column": ["nSeq", "I1", "O1", "A1", "A3"],
                  "sampling rate": 100, "resolution": [4, 1, 1, 10, 10], "channels": [1, 3],
                  "label": ["A1", "A3"]}}  # fmt: skip
        signals = "# OpenSignals Text File Format\n# " + json.dumps(header) + "\n# EndOfHeader\n"
        signals += "".join(f"{i % 16}\t0\t0\t500\t{200 + i}\t\n" for i in range(n))
        made = {
            "a.csv": "time,eda\n" + rows,
            "bare.csv": rows,
            "semi.csv": "Time [s];EDA (uS)\n" + rows.replace(",", ";").replace(".", ","),
            "ms.txt": "t_ms\tuS\n" + "".join(f"{int(a * 1000)}\t{b:.3f}\n" for a, b in zip(t, s)),
            "quoted.csv": '"timestamp","gsr"\n'
            + "".join(f'"2024-01-01T00:00:{a:06.3f}","{b:.3f}"\n' for a, b in zip(t, s)),
            "biovid_bio.csv": "time\tgsr\tecg\temg_trapezius\temg_corrugator\temg_zygomaticus\n" + biovid,
            "os.txt": signals,
            "EDA.csv": "1700000000.00\n4.000000\n" + "".join(f"{b:.6f}\n" for b in s),
            "physiokit.csv": "arduino_ts,eda\n" + "".join(f"{int(a * 1000)},{int(b * 100)}\n" for a, b in zip(t, s)),
            "numbers.txt": "".join(f"{b:.3f}\n" for b in s),
            "shimmer.csv": "sep=,\nShimmer_Timestamp_Unix_CAL,Shimmer_GSR_Skin_Conductance_CAL\nms,uS\n"
            + "".join(f"{1.7e12 + a * 1000:.3f},{b:.4f}\n" for a, b in zip(t, s)),
        }  # fmt: skip
        found = {name: text.encode() for name, text in made.items()}
        found["utf16.csv"] = ("time,eda\n" + rows).encode("utf-16")
        import gzip

        found["a.csv.gz"] = gzip.compress(found["a.csv"])
        return found

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.media.eda_files import Asked, read_eda_file

        path = self.file(name, data)
        strict = len(data) % 8 == 0
        rate = 4.0 if name.startswith("numbers") or len(data) % 16 == 1 else None
        found = read_eda_file(path, Asked(rate, None), strict=strict)
        n = len(found.times)
        assert n == len(found.values) and n and np.isfinite(found.values).any()
        assert np.isfinite(found.times).all() and found.times[0] == 0 and (np.diff(found.times) >= 0).all(), "times"
        assert not np.isinf(found.values).any() and found.lost >= 0 and "\n" not in "".join(found.notes)


class EdaBinary(EdaFiles):
    name = "eda binary"
    tokens = (b"XDF:", b"<info>", b"</info>", b"<channel_count>", b"nominal_srate", b"\x89HDF", b"TREE",
              b"PK\x03\x04", b"EDA.csv", b"Obj\x01", b"avro.schema", b"avro.codec", b"deflate",
              b"HEAP", b"SNOD", b"EDF+C", b"-1  ")  # fmt: skip

    def make(self, folder: Path) -> dict[str, bytes]:
        import test_media_eda_formats as formats

        before = formats.N, formats.T, formats.S
        for file, write, _, _ in formats.FORMATS.values():
            n = before[0] if file in ("a.edf", "a.bdf") else 120  # a quick reader reads more inputs
            formats.N, formats.T, formats.S = n, before[1][:n], before[2][:n]
            write(folder / file)
        formats.N, formats.T, formats.S = before
        return {p.name.replace("1-1-001_1700000000", "a"): p.read_bytes() for p in folder.iterdir()}


class Tables(Reader):
    """Label files and tables of the data sets."""

    name = "tables"
    tokens = (b"subject_id", b"sample_name", b"class_id", b"valence,arousal", b"-5", b"\t")

    def make(self, folder: Path) -> dict[str, bytes]:
        head = "subject_id\tsubject_name\tclass_id\tclass_name\tsample_id\tsample_name\n"
        rows = "".join(
            f"1\t071309_w_21\t{c}\t{n}\t{i}\t071309_w_21-{n}-08{i}\n"
            for i, (c, n) in enumerate(((0, "BL1"), (4, "PA4")))
        )
        return {
            "samples.csv": (head + rows).encode(),
            "va.txt": b"valence,arousal\n" + b"0.1,0.2\n-5,-5\n0.3,-0.4\n" * 4,
            "table.csv": b"a,b\n1,2\n3,4\n",
        }

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.media.tables import read_table
        from jmt_edge.training import readers
        from jmt_edge.training.data import Problems

        path = self.file(name, data)
        if name == "va.txt":
            readers.read_va(path)
        elif name == "table.csv":
            read_table(path, ",", ("a", "b"))
        else:
            readers._samples_csv(path, Problems())


# ---- the page


class PageBodies(Reader):
    """The JSON of requests and of WebSocket messages, checked as the server checks them."""

    name = "page messages"
    tokens = (
        b'"text"',
        b'"rating"',
        b'"on"',
        b'"seconds"',
        b'"limit"',
        b'"type"',
        b'"ack"',
        b'"view"',
        b'"n"',
        b'"face"',
    )

    def make(self, folder: Path) -> dict[str, bytes]:
        return {
            "ack": b'{"type":"ack","n":3}', "view": b'{"type":"view","face":"blur","visible":true}',
            "token": b'{"token":"abcdefghijklmnopqrstuvwxyz"}',
            **{f"body {i}": body for i, body in enumerate((
                b'{"text":"turned over","rating":3}', b'{"on":true}', b'{"seconds":30}', b'{"id":"pain"}',
                b'{"limit":0.5,"hysteresis":0.1,"delay":2.0,"enabled":true}', b'{"face":"hide"}'))},
        }  # fmt: skip

    def open(self, scratch: Path) -> None:
        from jmt_edge.live.page import api
        from jmt_edge.live.page.clients import Client, Shared

        super().open(scratch)
        self.bodies = [o for o in api.OPERATIONS if o.body]
        model: Any = None
        self.client = Client(None, model, Shared(model), "show")  # type: ignore[arg-type]

    def read(self, name: str, data: bytes) -> None:
        from jmt_edge.live.page import api
        from jmt_edge.live.page.security import Guard

        try:
            value = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return
        if name == "token":
            given = value.get("token") if isinstance(value, dict) else None
            if isinstance(given, str):
                assert not Guard("x" * 20).token_allowed(given, None)
            return
        if isinstance(value, dict):
            self.client.take(value)
        for operation in self.bodies:
            try:
                assert operation.body is not None
                body = api.check_body(value, operation.body, operation.required)
                json.dumps(body, allow_nan=False).encode()
            except api.Refused:
                pass


class PageRequests(Reader):
    """Bytes that reach the page's port: HTTP, cookies, WebSocket frames. The answer is never a 500."""

    name = "page requests"
    tokens = (
        b"GET ", b"POST ", b"HTTP/1.1\r\n", b"Host: 127.0.0.1\r\n", b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"Upgrade: websocket\r\n", b"Cookie: ", b"Authorization: Bearer ", b"/api/", b"/healthz", b"/ws", b"/%2e%2e/",
        b"\r\n\r\n", b"Origin: null\r\n", b"Content-Type: application/json\r\n", b"Expect: 100-continue\r\n",
        b"Range: bytes=0-\r\n", b"\x81\x85", b"\x88\x82", b"\x89\x80", b"\x82\xfe",
    )  # fmt: skip

    def make(self, folder: Path) -> dict[str, bytes]:
        from jmt_edge.live.page import api

        host = b"Host: 127.0.0.1\r\n"
        made = {}
        for i, operation in enumerate(api.OPERATIONS):
            path = operation.path.replace("{id}", "run").encode()
            body = b'{"text":"a","rating":1,"on":true,"seconds":3}' if operation.method == "POST" else b""
            head = operation.method.encode() + b" " + path + b" HTTP/1.1\r\n" + host
            if body:
                head += b"Content-Type: application/json\r\nContent-Length: " + str(len(body)).encode() + b"\r\n"
            made[f"request {i}"] = head + b"Cookie: a=b; token=c\r\n\r\n" + body
        made["static"] = b"GET / HTTP/1.1\r\n" + host + b'If-None-Match: "x"\r\nAuthorization: Bearer abc\r\n\r\n'
        upgrade = (
            b"GET /ws HTTP/1.1\r\n"
            + host
            + b"Origin: http://127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

        def frame(data: bytes, kind: int = 0x81) -> bytes:
            return bytes([kind, 0x80 | len(data)]) + b"\0\0\0\0" + data

        made["socket"] = upgrade + frame(b'{"type":"ack","n":3}')
        made["socket login"] = upgrade + frame(b'{"token":"abcdefghijklmnopqrstuvwxyz"}') + frame(b"bye", 0x88)
        return made

    def open(self, scratch: Path) -> None:
        import logging

        from jmt_edge.controls import Controls
        from jmt_edge.live.page import api, clients, security, start_page

        super().open(scratch)
        logging.getLogger("uvicorn.error").propagate = True
        for room in (api, clients, security):  # a limit on the rate would keep most inputs from being read
            if hasattr(room, "Bucket"):
                room.Bucket.take = lambda *_: True  # type: ignore[method-assign]
        (scratch / "page").mkdir(exist_ok=True)
        self.page = start_page("127.0.0.1:0", Controls(), recordings=scratch / "page")
        self.port = int(self.page.url.rstrip("/").rpartition(":")[2])

    def read(self, name: str, data: bytes) -> None:
        import socket

        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT: ports are few
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            s.settimeout(0.02 if "socket" in name else 2.0)
            answer = b""
            with suppress(TimeoutError, ConnectionError):
                answer = s.recv(4096)
        status = answer[9:12]
        assert status != b"500", answer[:300]


READERS: dict[str, Callable[[], Reader]] = {
    reader.name: reader
    for reader in (
        Boards, Marks, Settings, Recipes, Bundles, Onnx, Safetensors, Checkpoints, Windows, Recordings, Sounds, Videos,
        Images, EdaFiles, EdaBinary, Tables, PageBodies, PageRequests,
    )
}  # fmt: skip


__all__ = ["READERS", "Reader"]
