"""Bundles that are not what was written: altered, added to, linked, changed while in use, malformed."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_fixture import hand_bundle, invoke
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.backends import open_engine, unavailable
from jmt_edge.engine.bundle import Bundle, cpu_graph, load_bundle, write_bundle
from jmt_edge.engine.onnx_file import has_external_data
from jmt_edge.errors import BundleError, UserError
from jmt_edge.plain_files import checksum
from jmt_edge.tasks import TASK_NAMES, get_task

Bundles = Callable[[str], Bundle]


def seal(folder: Path, manifest: bytes) -> None:
    """Write a manifest as somebody would who knows the format."""
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "manifest.sha256").write_bytes(checksum(manifest, "manifest.json"))


def sentence(call: Callable[[], object], kind: type[Exception] = UserError) -> str:
    """What the error of `call` says, empty where it raises none of this kind."""
    try:
        call()
    except kind as error:
        return str(error)
    return ""


def refused(folder: Path, match: str | None = None) -> str:
    with pytest.raises(BundleError, match=match) as error:
        load_bundle(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(params=TASK_NAMES)
def shipped(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a demo bundle with a file in a folder."""
    source = load_bundle(demo_bundle(request.param))
    manifest = {k: v for k, v in source.manifest.items() if k not in ("files", "schema")}
    return write_bundle(tmp_path / "x.jmt", manifest, {**source.files, "reports/a/build.json": b"{}"}).path


def all_files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    assert {"manifest.json", "manifest.sha256", "fusion.onnx", "build.json"} <= {p.name for p in found}
    return found


def test_any_changed_byte_is_refused(shipped: Path) -> None:
    rng = np.random.default_rng(0)
    for file in all_files(shipped):
        good = file.read_bytes()
        places = {0, len(good) - 1, *rng.integers(0, len(good), 12).tolist()}
        for place in places:
            bad = bytearray(good)
            bad[place] ^= int(rng.integers(1, 256))
            file.write_bytes(bad)
            assert file.name in refused(shipped, "altered").replace("manifest.sha256", "manifest.json manifest.sha256")
        for bad in (good[:-1], good + b"\n", b""):
            file.write_bytes(bad)
            refused(shipped, "altered")
        file.write_bytes(good)
    load_bundle(shipped)


def test_any_missing_or_linked_file_is_refused(shipped: Path, tmp_path: Path) -> None:
    for file in all_files(shipped):
        kept = tmp_path / "kept"
        file.rename(kept)
        assert file.name in refused(shipped, "lacks|has no")
        for target in (kept, Path("/dev/zero"), Path("nowhere")):
            file.symlink_to(target)
            assert str(file) in refused(shipped, "is a link")
            file.unlink()
        os.mkfifo(file)  # reading one would wait for ever
        assert str(file) in refused(shipped, "is not a plain file")
        file.unlink()
        file.mkdir()
        refused(shipped, "lacks|not a plain file")
        file.rmdir()
        os.link(kept, file)  # what package managers make: the same bytes under another name
        load_bundle(shipped)
        file.unlink()
        kept.rename(file)
    folder = shipped / "reports" / "a"
    folder.rename(tmp_path / "a")
    folder.symlink_to(tmp_path / "a")
    assert str(folder) in refused(shipped, "is a link")


@pytest.mark.parametrize("name", ["w.bin", ".hidden", "reports/a/w.bin", "new/w.bin", "face.onnx.data", "\x1b[2J"])
def test_any_added_file_is_refused(shipped: Path, name: str) -> None:
    file = shipped / name
    file.parent.mkdir(exist_ok=True)
    load_bundle(shipped)  # an empty folder is nothing that is read
    file.write_bytes(b"")
    said = refused(shipped, "does not list; remove it")
    assert said.isprintable()
    file.unlink()
    file.symlink_to(shipped / "fusion.onnx")
    assert refused(shipped, "is a link").isprintable()


def test_the_bundle_itself_may_be_a_link(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "current.jmt").symlink_to(shipped)
    linked = load_bundle(tmp_path / "current.jmt")
    assert linked.id == load_bundle(shipped).id
    open_engine(linked, "onnxruntime", 1)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../b", "./a", "a//b", "a/", ".", "", "manifest.json", "manifest.sha256", "a\nb"]
)
def test_names_that_are_no_names_are_refused(bundles: Bundles, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "x.jmt"
    shutil.copytree(bundles("pain").path, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] = "0" * 64
    seal(folder, json.dumps(manifest).encode())
    assert refused(folder).isprintable()


def test_what_changes_after_loading_is_not_used(bundles: Bundles, tmp_path: Path) -> None:
    """Checked, then opened by another hand: the engine and every copy get the bytes of the manifest or nothing."""
    good = bundles("pain").path
    for number, network in enumerate(("face", "eda", "fusion")):
        folder = tmp_path / f"{number}.jmt"
        shutil.copytree(good, folder)
        bundle = load_bundle(folder)
        other = onnx.load(folder / f"{network}.onnx")
        other.producer_name = "somebody else"
        (folder / f"{network}.onnx").write_bytes(other.SerializeToString())
        for backend in ("onnxruntime", "openvino"):
            if unavailable(backend) is None:
                with pytest.raises(BundleError, match="altered"):
                    open_engine(bundle, backend, 1)
        with pytest.raises(BundleError, match="altered"):
            open_engine(bundle, threads=1)  # `auto` does not pass on to another backend either
        manifest = {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema")}
        with pytest.raises(BundleError, match="altered"):
            write_bundle(tmp_path / "copy.jmt", manifest, bundle.files)
        assert not list(tmp_path.glob("*copy.jmt*"))
        (folder / f"{network}.onnx").unlink()
        (folder / f"{network}.onnx").symlink_to(good / f"{network}.onnx")
        with pytest.raises(BundleError, match="is a link"):
            bundle.exported_graph(network)
        (folder / f"{network}.onnx").unlink()
        os.mkfifo(folder / f"{network}.onnx")
        with pytest.raises(BundleError, match="not a plain file"):
            bundle.exported_graph(network)


# ---- weights in other files


def external(tensor: TensorProto, location: str = "w.bin") -> TensorProto:
    outside = TensorProto()
    outside.CopyFrom(tensor)
    set_external_data(outside, location)
    outside.data_location = TensorProto.EXTERNAL
    outside.ClearField("raw_data")
    return outside


WEIGHTS = numpy_helper.from_array(np.ones((1, 4), np.float32), "w")


def _graph(nodes: list[Any] = [], initials: list[Any] = [], **more: Any) -> onnx.GraphProto:  # noqa: B006
    return helper.make_graph(nodes, "g", [], [], initials, **more)


def _sparse(values: TensorProto) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(4, dtype=np.int64), "i")
    return helper.make_sparse_tensor(values, indices, [8])


def _training(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(_graph())
    model.training_info.add().algorithm.CopyFrom(_graph(initials=[tensor]))
    return model


# where a model can hold a tensor: each place with the tensor as it is given
PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "initializer": lambda t: helper.make_model(_graph(initials=[t])),
    "sparse initializer": lambda t: helper.make_model(_graph(sparse_initializer=[_sparse(t)])),
    "attribute": lambda t: helper.make_model(_graph([helper.make_node("Constant", [], ["c"], value=t)])),
    "sparse attribute": lambda t: helper.make_model(
        _graph([helper.make_node("Constant", [], ["c"], sparse_value=_sparse(t))])
    ),
    "list of tensors": lambda t: helper.make_model(_graph([helper.make_node("X", [], ["c"], several=[WEIGHTS, t])])),
    "subgraph": lambda t: helper.make_model(
        _graph([helper.make_node("If", ["c"], ["y"], then_branch=_graph(), else_branch=_graph(initials=[t]))])
    ),
    "list of graphs": lambda t: helper.make_model(
        _graph([helper.make_node("X", [], ["y"], several=[_graph(), _graph(initials=[t])])])
    ),
    "function": lambda t: helper.make_model(
        _graph(),
        functions=[
            helper.make_function("d", "f", [], ["c"], [helper.make_node("Constant", [], ["c"], value=t)], [
                helper.make_opsetid("", 20)
            ])
        ],
    ),
    "training": _training,
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_another_file_are_found_wherever_they_hang(place: str) -> None:
    assert not has_external_data(PLACES[place](WEIGHTS).SerializeToString())
    assert has_external_data(PLACES[place](external(WEIGHTS)).SerializeToString())
    half = external(WEIGHTS)
    half.data_location = TensorProto.DEFAULT  # what the reader makes of this is its own affair
    assert has_external_data(PLACES[place](half).SerializeToString())


def test_real_graphs_are_whole_and_are_read_to_their_end() -> None:
    for task in TASK_NAMES:
        bundle = load_bundle(demo_bundle(task))
        for network in bundle.networks:
            model = onnx.load_from_string(bundle.exported_graph(network))
            for i, tensor in enumerate(model.graph.initializer):
                if i in (0, len(model.graph.initializer) - 1):
                    kept = copy.deepcopy(tensor)
                    model.graph.initializer[i].CopyFrom(external(tensor))
                    assert has_external_data(model.SerializeToString())
                    model.graph.initializer[i].CopyFrom(kept)
            assert not has_external_data(model.SerializeToString())


@given(st.binary(max_size=200))
def test_bytes_that_are_no_graph_end_in_a_sentence(data: bytes) -> None:
    assert "\n" not in sentence(lambda: has_external_data(data), ValueError)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_damaged_graph_is_called_whole_that_onnx_says_is_not(data: st.DataObject) -> None:
    """Against protobuf: a mutated model that it still parses with external data in it is found to have some."""
    place = data.draw(st.sampled_from(sorted(PLACES)))
    raw = bytearray(PLACES[place](external(WEIGHTS)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = has_external_data(bytes(raw))
    except ValueError:
        return  # refused
    try:
        model = onnx.load_from_string(bytes(raw))
    except Exception:  # protobuf's own class: whatever reads it refuses it
        return
    tensors = onnx.external_data_helper._get_all_tensors(model)
    if any(onnx.external_data_helper.uses_external_data(t) for t in tensors):
        assert found


@pytest.mark.parametrize("where", ["beside", "listed", "above"])
def test_a_bundle_whose_graph_reads_another_file_is_refused(bundles: Bundles, tmp_path: Path, where: str) -> None:
    """Changed weights under the same bundle id: the hole that hashes of the listed files alone leave."""
    good = bundles("pain")
    model = onnx.load_from_string(good.exported_graph("face"))
    location = "../w.bin" if where == "above" else "w.bin"
    for i, tensor in enumerate(model.graph.initializer):
        if tensor.name == "ones":
            weights = tensor.raw_data
            model.graph.initializer[i].CopyFrom(external(tensor, location))
    folder = tmp_path / "x.jmt"
    shutil.copytree(good.path, folder)
    (folder / location).resolve().write_bytes(weights)
    (folder / "face.onnx").write_bytes(model.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["face.onnx"] = sha256(folder / "face.onnx")
    if where == "listed":
        manifest["files"]["w.bin"] = sha256(folder / "w.bin")
    seal(folder, json.dumps(manifest).encode())
    refused(folder, "does not list" if where == "beside" else "has weights in another file")
    bundle = Bundle(folder, manifest, good.task, "x@0")
    with pytest.raises(BundleError, match="has weights in another file"):
        open_engine(bundle, "onnxruntime", 1)


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- manifests of any shape


def whole_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the bundle in `folder` with all that calibrate, build and training add, on files it has."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    networks = manifest["networks"]
    runs = {name: {"onnx": entry["onnx"], "precision": "fp32"} for name, entry in networks.items()}
    plans = {
        name: {"plan": e["onnx"], "precision": "fp16", "bytes": 1, "cached": False} for name, e in networks.items()
    }
    extra = {
        "calibration": {"temperature": 1.5},
        "labels": {"pain": ["no pain", "pain"]},
        "untrained_networks": [],
        "engines": {
            "onnxruntime": {"library_version": "1", "target": "cpu", "networks": runs, "report": "fusion.onnx"},
            "openvino": {"library_version": "1", "target": "cpu", "networks": runs},
            "tensorrt-sm_87": {
                "library_version": "10.3", "device": "Orin", "l4t": "36.4", "batch": [1, 1, 1], "networks": plans,
                "fusion": "plan",
            },
        },
        "int8": {"networks": {"face": {"onnx": "face.onnx", "kept": ["a"], "note": ""}}, "table": "face.onnx"},
        "cubins": {"index": "face.onnx", "precision": "float16", "steps": 1, "batch": 1, "targets": ["sm_87"]},
        "provenance": {"weights": "random", "split": {"test_subjects": ["a"], "train_subjects": []}, "scores": {}},
        "built_from": "a@0",
    }  # fmt: skip
    return manifest | extra


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(one, (*at, key))


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["face.onnx", -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hand_bundle(get_task("trimodal", "demo"), tmp_path_factory.mktemp("small") / "x.jmt").path


@pytest.fixture(scope="module")
def whole_text(small: Path) -> str:
    text = json.dumps(whole_manifest(small))
    seal(small, text.encode())
    bundle = load_bundle(small)
    assert bundle.temperature == 1.5 and cpu_graph(bundle, "face") == ("face.onnx", "fp32")
    return text


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_manifest_of_any_shape_opens_or_is_one_sentence(data: st.DataObject, small: Path, whole_text: str) -> None:
    """Every entry of a real manifest replaced, left out or added to; what opens can be used."""
    whole = json.loads(whole_text)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from(list(paths(whole))[1:]))
        place = whole
        for key in at[:-1]:
            place = place[key]
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "add" and isinstance(place, dict):
            place[data.draw(st.text(max_size=6))] = data.draw(WRONG)
        elif change == "remove":
            del place[at[-1]]
        else:
            place[at[-1]] = data.draw(WRONG)
    seal(small, json.dumps(whole).encode())
    assert sentence(lambda: use(load_bundle(small))).isprintable()


def use(bundle: Bundle) -> None:
    """What the commands read of a manifest before any network runs."""
    from jmt_edge.compiler.plan_maker import stored_timing_cache
    from jmt_edge.engine.backends import auto_order
    from jmt_edge.engine.backends.tensorrt import find_plans
    from jmt_edge.engine.device import Device
    from jmt_edge.engine.tensorrt_api import Library

    assert bundle.name.isprintable() and bundle.temperature > 0 and bundle.task.window > 0
    assert isinstance(bundle.demo, bool) and bundle.files
    auto_order(bundle)
    library = Library("tensorrt", None, "10.3")
    stored_timing_cache(bundle, library, "sm_87", Device("Orin", "sm_87", 8, 8 << 30, "12.6", True))
    for network in (*bundle.task.names, "fusion"):
        for runtime in ("onnxruntime", "openvino"):
            cpu_graph(bundle, network, runtime)
        bundle.exported_graph(network)
    bundle.manifest["provenance"].get("split", {}).get("test_subjects", [])
    with pytest.raises(UserError):  # no GPU here, or not that one
        find_plans(bundle, library)
    open_engine(bundle, "onnxruntime", 1).close()


DEEP = b'{"schema": 1, "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"calibration": [1]}, "calibration is a list, not a table"),
        ({"calibration": {"temperature": 0}}, "calibration.temperature is 0, not a number above 0"),
        ({"calibration": {"temperature": float("nan")}}, "calibration.temperature is nan"),
        ({"networks": None}, "networks is null, not a table"),
        ({"networks": {"face": {"onnx": "gone.onnx"}}}, "networks.face.onnx names 'gone.onnx', which is not among"),
        ({"networks": {"face": {"onnx": ["face.onnx"]}}}, "networks.face.onnx is a list"),
        ({"name": ["x"]}, "name is a list"),
        ({"name": "../../x"}, "name is '../../x', not a name without /"),
        ({"name": "\u202egpj"}, "printable name"),
        ({"name": "\x1b[2J"}, "printable name"),
        ({"name": "\ud800"}, "can be encoded"),
        ({"files": {"face.onnx": 7}}, "files.face.onnx is 7, not a sha256"),
        ({"demo": "no"}, "demo is 'no', not true or false"),
        ({"engines": {"tensorrt-sm_87": {"networks": {}}}}, "engines.tensorrt-sm_87 lacks library_version"),
        ({"schema": [1]}, "bundle schema 'list'"),
        ({"task": 3}, "task is 3, not a table"),
        (DEEP, "nested too deeply"),
        (b"\xff\xfe\x00", "not readable JSON"),
        (b"9" * 5000, "cannot be used"),
    ],
)
def test_live_says_what_is_wrong_with_a_manifest(
    bundles: Bundles, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: Any, says: str
) -> None:
    folder = tmp_path / "x.jmt"
    shutil.copytree(bundles("pain").path, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    seal(folder, change if isinstance(change, bytes) else json.dumps(manifest | change).encode())
    done = invoke(capfd, "live", "--bundle", str(folder), "--output", "none")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("jmt-edge: ") and says in done.stderr


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("steps", True), ("steps", 10**400), ("dim", "64"), ("heads", None), ("variant", "huge"),
        ("outputs", ["pain", "pain"]), ("outputs", []), ("outputs", [["pain"]]), ("l2_normalise", 1),
        ("modalities", []), ("modalities.name", "smell"), ("modalities.name", ["face"]), ("modalities.width", 0),
        ("modalities.shape", [3, 10, 112, -1]), ("modalities.shape", [3, 10, 10**7, 10**7]), ("modalities.shape", 3),
        ("modalities.span", float("nan")), ("modalities.end", 1.0), ("modalities.stride", -1),
        ("modalities.std", [0.2, 0.2, 0]), ("modalities.mean", []), ("modalities.fill", "white"), ("\x1b[2J", 1),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_used_is_refused(small: Path, whole_text: str, field: str, value: Any) -> None:
    whole = json.loads(whole_text)
    task = whole["task"]
    place, key = (task["modalities"][0], field.partition(".")[2]) if "." in field else (task, field)
    place[key] = value
    seal(small, json.dumps(whole).encode())
    assert refused(small, "the task description is malformed").isprintable()
