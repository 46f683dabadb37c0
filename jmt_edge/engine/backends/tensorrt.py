"""TensorRT plans from the bundle, run through cuda-bindings: no torch, no allocation after loading.

Each network owns its buffers. The backbones of one hop run on separate streams, so a small one uses what a large one
leaves idle; together they are one CUDA graph per set of modalities, and the fusion is another. `step` joins both into
one graph, in which fresh features reach the fusion on the device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..bundle import Bundle
from ..cuda import Buffer, Graph, Stream, fork, join
from ..device import Device, board_model, current_device, l4t_release, no_device
from ..tensorrt_api import Library, LibraryName, Messages, make_logger, open_library
from .base import F32, Fresh, Step, TwoCalls, last_step, merge

Plans = dict[str, tuple[bytes, str]]
log = logging.getLogger(__name__)


def available() -> str | None:
    return library_available("tensorrt")


def library_available(name: LibraryName) -> str | None:
    """None, or why neither the library nor a GPU can be used here."""
    if reason := no_device():  # first: importing TensorRT without a GPU only wastes memory
        return reason
    try:
        open_library(name)
    except BackendError as error:
        return str(error)
    return None


def load(bundle: Bundle, threads: int | None = None) -> TensorRtEngine:
    library = open_library("tensorrt")
    return TensorRtEngine(bundle, library, read_plans(bundle, library))


def find_plans(bundle: Bundle, library: Library) -> dict[str, Any]:
    """The manifest's entry of plans for this device and library.

    Raises BackendError where the bundle has none, or they were built by another version, on another kind of device, on
    another L4T or for a newer CUDA. A board of another model with the same GPU is accepted with a warning.
    """
    device = current_device()
    engines: dict[str, Any] = bundle.manifest.get("engines", {})
    entry = engines.get(f"{library.name}-{device.sm}")
    remedy = f"run `jmt-edge build {bundle.path} --builder {library.name}` on this device"
    if entry is None:
        others = ", ".join(key for key in engines if key.startswith(library.name)) or "none"
        raise BackendError(
            f"bundle {bundle.path} has no {library.name} plan for {device.sm} (it has: {others}); {remedy}"
        )
    if entry["library_version"] != library.version:
        raise BackendError(
            f"the plans of {bundle.path} were built by {library.name} {entry['library_version']}, this is "
            f"{library.version}; {remedy}"
        )
    where = f"the plans of {bundle.path} were built on"
    if library.name != "tensorrt-rtx" and (built := _kind(entry)) and built != (here := _device_kind(device, built)):
        # TensorRT itself only logs that this "is not supported and is likely to affect performance or even cause errors
        # or deadlock"; TensorRT-RTX builds for a compute capability, not for a device
        raise BackendError(f"{where} another kind of device ({_words(built)}), this is {_words(here)}; {remedy}")
    if _cuda_cannot_run(entry.get("cuda", ""), device.cuda):
        raise BackendError(
            f"{where} CUDA {entry['cuda']}, this driver has {device.cuda}; {remedy}, or update the driver"
        )
    if device.integrated and (board := entry.get("board", "")) and (this := board_model()) and board != this:
        log.warning("%s '%s', and this is '%s': they may be slower than they could be; %s", where, board, this, remedy)
    if entry.get("l4t", "") not in ("", l4t_release()):
        raise BackendError(
            f"the plans of {bundle.path} were built on L4T {entry['l4t']}, this is {l4t_release()}; {remedy}"
        )
    return dict(entry)


def _kind(entry: dict[str, Any]) -> tuple[str, int] | None:
    """What tells devices of one compute capability apart, as far as the entry says it: name and multiprocessors.

    The name alone does not: CUDA calls every Orin `Orin`, from the Nano (4 or 8 multiprocessors) to the AGX (14 or 16).
    """
    name, sms = entry.get("device", ""), entry.get("sms", 0)
    return (name, sms) if name else None


def _device_kind(device: Device, like: tuple[str, int]) -> tuple[str, int]:
    return device.name, device.sms if like[1] else 0  # bundles of the first edition do not say how many


def _words(kind: tuple[str, int]) -> str:
    name, sms = kind
    return f"{name} with {sms} multiprocessors" if sms else name


def _cuda_cannot_run(built: str, here: str) -> bool:
    """Plans run with a driver of the same CUDA major and the same or a later minor version."""
    if not built:
        return False
    one, two = ([int(part) for part in text.split(".")[:2]] for text in (built, here))
    return one[0] != two[0] or one > two


def read_plans(bundle: Bundle, library: Library) -> Plans:
    """Network -> (plan, precision) of `find_plans`.

    A plan is code: only bytes whose hash is in the manifest are used.
    """
    entries = find_plans(bundle, library)["networks"]
    missing = [name for name in (*bundle.task.names, "fusion") if name not in entries]
    if missing:
        raise BackendError(
            f"the {library.name} plans of {bundle.path} lack {', '.join(missing)}; run `jmt-edge build {bundle.path} "
            f"--builder {library.name}` on this device"
        )
    return {name: (bundle.read(e["plan"]), str(e["precision"])) for name, e in entries.items()}


class _Network:
    """One plan with its buffers. Shapes are static: batch 1 unless the plan was built for more."""

    def __init__(self, library: Library, runtime: Any, plan: bytes, name: str, messages: Messages) -> None:
        trt = library.module
        self.engine = runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            reason = next(iter(messages.errors), "no reason given")
            raise BackendError(
                f"{library.name} cannot load the plan of '{name}' ({reason}); build it again on this device"
            )
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise BackendError(f"{library.name} is out of memory for '{name}'; close other programs on the GPU")
        self.stream = Stream()
        self.inputs: dict[str, Buffer] = {}
        self.outputs: dict[str, Buffer] = {}
        for i in range(self.engine.num_io_tensors):
            tensor = self.engine.get_tensor_name(i)
            is_input = self.engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT
            shape = tuple(self.engine.get_tensor_shape(tensor))
            if is_input and -1 in shape:
                shape = (1, *shape[1:])
                self.context.set_input_shape(tensor, shape)
        for i in range(self.engine.num_io_tensors):
            tensor = self.engine.get_tensor_name(i)
            is_input = self.engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT
            shape = tuple(self.context.get_tensor_shape(tensor))
            buffer = Buffer(shape, trt.nptype(self.engine.get_tensor_dtype(tensor)))
            (self.inputs if is_input else self.outputs)[tensor] = buffer
            self.context.set_tensor_address(tensor, int(buffer.device))

    def enqueue(self) -> None:
        self.upload()
        self.execute()

    def upload(self) -> None:
        for buffer in self.inputs.values():
            buffer.upload(self.stream)

    def execute(self) -> None:
        if not self.context.execute_async_v3(int(self.stream.handle)):
            raise BackendError("TensorRT refused to run a plan; build it again on this device")
        for buffer in self.outputs.values():
            buffer.download(self.stream)

    def close(self) -> None:
        del self.context, self.engine
        for buffer in (*self.inputs.values(), *self.outputs.values()):
            buffer.close()
        self.stream.close()


class TensorRtEngine(TwoCalls):
    """See `Engine`. `plans` may hold some of the networks only, to time them."""

    def __init__(self, bundle: Bundle, library: Library, plans: Plans) -> None:
        self.name: str = library.name
        self._task = bundle.task
        self.precision = {name: precision for name, (_, precision) in plans.items()}
        self._messages = Messages()
        self._logger = make_logger(library, self._messages)
        self._runtime = library.module.Runtime(self._logger)
        self._networks = {
            name: _Network(library, self._runtime, plan, name, self._messages) for name, (plan, _) in plans.items()
        }
        self._main = Stream()
        self._graphs: dict[tuple[str, ...], Graph] = {}
        self._compare_graph_with_eager()

    def backbones(self, clips: Mapping[str, F32]) -> dict[str, F32]:
        longest = max((len(batch) for batch in clips.values()), default=0)
        rows: dict[str, list[F32]] = {name: [] for name in clips}
        for i in range(longest):
            names = tuple(name for name in self._task.names if name in clips and i < len(clips[name]))
            for name in names:
                np.copyto(self._networks[name].inputs["clip"].host, clips[name][i : i + 1], casting="same_kind")
            self._run(names)
            for name in names:
                rows[name].append(self._networks[name].outputs["features"].host.astype(np.float32))
        return {name: np.concatenate(parts) for name, parts in rows.items()}

    def fusion(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        network = self._networks["fusion"]
        results: dict[str, list[F32]] = {name: [] for name in network.outputs}
        for b in range(len(present)):
            for name in self._task.names:
                np.copyto(network.inputs[name].host, features[name][b : b + 1], casting="same_kind")
            np.copyto(network.inputs["present"].host, present[b : b + 1].astype(np.float32), casting="same_kind")
            self._run(("fusion",))
            for name, buffer in network.outputs.items():
                results[name].append(buffer.host.astype(np.float32))
        return last_step({name: np.concatenate(parts) for name, parts in results.items()})

    def step(
        self,
        clips: Mapping[str, F32],
        features: Mapping[str, F32],
        present: NDArray[np.bool_],
        fresh: Fresh,
    ) -> Step:
        """One CUDA graph where no modality has more than one fresh clip, else two calls.

        The first call for a set of modalities and steps is compared bit for bit with the two calls it replaces; raises
        BackendError where they differ.
        """
        if any(len(batch) > 1 for batch in clips.values()):
            return super().step(clips, features, present, fresh)
        fusion = self._networks["fusion"]
        names = tuple(name for name in self._task.names if name in clips)
        rows = {name: tuple(fresh[name][0]) for name in names}
        for name in names:
            np.copyto(self._networks[name].inputs["clip"].host, clips[name], casting="same_kind")
        for name in self._task.names:
            np.copyto(fusion.inputs[name].host, features[name], casting="same_kind")
        np.copyto(fusion.inputs["present"].host, present.astype(np.float32), casting="same_kind")
        key = ("step", *names, *(f"{name}:{row}" for name in names for row in rows[name]))
        known = key in self._graphs
        self._replay(key, lambda: self._enqueue_step(rows))
        found = {name: self._networks[name].outputs["features"].host.astype(np.float32) for name in names}
        outputs = last_step({name: buffer.host.astype(np.float32) for name, buffer in fusion.outputs.items()})
        if not known:
            self._compare_step(clips, features, present, fresh, (found, outputs))
        return Step(found, outputs)

    def _enqueue_step(self, rows: Mapping[str, Sequence[int]]) -> None:
        """Events tie all streams to the main one, so a single capture contains everything."""
        fusion = self._networks["fusion"]
        fork(self._main, fusion.stream)
        fusion.upload()
        for name in rows:
            fork(self._main, self._networks[name].stream)
            self._networks[name].enqueue()
        for name, steps in rows.items():
            network = self._networks[name]
            fork(network.stream, fusion.stream)
            result = network.outputs["features"]
            for step in steps:  # one row of (1, S, d); inputs and outputs of every plan are float32
                result.copy_into(fusion.inputs[name], step * result.size, fusion.stream)
        fusion.execute()
        join(self._main, fusion.stream)

    def _compare_step(
        self,
        clips: Mapping[str, F32],
        features: Mapping[str, F32],
        present: NDArray[np.bool_],
        fresh: Fresh,
        got: tuple[Mapping[str, F32], Mapping[str, F32]],
    ) -> None:
        apart = self.backbones(clips)
        for one, two in ((got[0], apart), (got[1], self.fusion(merge(features, apart, fresh), present))):
            if any(not np.array_equal(one[key], two[key], equal_nan=True) for key in one):
                raise BackendError(
                    "the CUDA graph of a whole step gives other results than its plans one by one; build the plans "
                    "again or use --backend onnxruntime"
                )

    def close(self) -> None:
        for graph in self._graphs.values():
            graph.close()
        for network in self._networks.values():
            network.close()
        self._main.close()

    def _run(self, names: tuple[str, ...]) -> None:
        self._replay(names, lambda: self._enqueue(names))

    def _replay(self, key: tuple[str, ...], enqueue: Callable[[], None]) -> None:
        """Run the graph of `enqueue`, captured at its first call."""
        if key not in self._graphs:
            enqueue()  # lazy initialisation inside TensorRT must not happen during capture
            self._main.synchronize()
            self._graphs[key] = Graph(self._main, enqueue)
        self._graphs[key].replay()
        self._main.synchronize()

    def _enqueue(self, names: tuple[str, ...]) -> None:
        for name in names:
            fork(self._main, self._networks[name].stream)
            self._networks[name].enqueue()
        for name in names:
            join(self._main, self._networks[name].stream)

    def _compare_graph_with_eager(self) -> None:
        """A faulty capture would give wrong results silently, so each graph is compared once, bit for bit."""
        rng = np.random.default_rng(0)
        for name, network in self._networks.items():
            for buffer in network.inputs.values():
                buffer.host[...] = rng.standard_normal(buffer.host.shape).astype(buffer.host.dtype)
            self._enqueue((name,))
            self._main.synchronize()
            eager = {key: buffer.host.copy() for key, buffer in network.outputs.items()}
            self._run((name,))
            for key, buffer in network.outputs.items():
                if not np.array_equal(eager[key], buffer.host, equal_nan=True):
                    raise BackendError(
                        f"the CUDA graph of '{name}' gives other results than the plan itself; build it again or use "
                        "--backend onnxruntime"
                    )
