"""The table of work behind `fusion.fusion_kernel`: which matrices and buffers, in which phase; and its plan, which
item each program does when.

A schedule is made for given weights, batch B, steps S, dtype and tiles. It gives the outputs of every step or, with
`last`, of each sample's last step: one query per sample then enters the cross-attentions, and what follows them has B
rows instead of B S. It is plain NumPy: the same arrays drive the kernel from PyTorch, from the interpreter and, stored
in a bundle, from the run-time launcher. Phases with merging (one head, head self_attention), seven:

    encoders  project q, v and the joint | attend, LN, w1, ReLU
    cross     w2, and through it the cross-attentions' queries | attend, the matrices on it, and through them q, v
    final     attend, LN, w1, ReLU | w2, and through it the last query and values | last attention and heads

and without:

    encoders  project q, v (k) and the joint | attend (| out) | LN, w1, ReLU | w2
    cross     LN, project one q per source, stacked v (k) of the other sources | attend (| out)
    final     project | attend (| out) | LN, w1, ReLU | w2 | LN, last query and values | head      (self_attention)
              head                                                                                 (concat)

`(k)` and `(| out)` exist only with several heads. "Through" is a product of two matrices, made here in float64: what is
linear in a row needs no phase of its own. So the joint's q and v (k) read the features; a projection of LayerNorm(e),
e = m + w2 h, reads m and h, and the norm's mean and deviation, which its reader knows, are applied behind it; and a
LayerNorm's gain and shift go into the matrix after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..engine.work_plan import ROW, TILE, Plan, make_plan
from ..errors import ConfigError
from .weights import Array, Encoder, FusionWeights

DType = Literal["float16", "bfloat16", "float32", "int8"]
DTYPES: tuple[DType, ...] = ("float16", "bfloat16", "float32", "int8")

INPUT, NORM, PLAIN, ATTEND, HEAD, LAYER, CROSS, LAST = range(8)  # as in fusion.py
RELU, ABS = 1, 2
_ABSOLUTE = 256  # in OPS
_BM, _PACK = 16, 16
_MOST = 4  # weight tiles that an item holds in registers
_ALIGN = 128  # elements: every offset is a multiple of 16 bytes in any dtype
MAX_STEPS, MAX_BATCH = 64, 64


def activation(dtype: DType) -> str:
    """Type of features and intermediates: INT8 quantises weights only."""
    return "float16" if dtype == "int8" else dtype


@dataclass(frozen=True)
class Tiles:
    """Columns per tile of a projection and of an attention's values, warps per program, programs that a phase's items
    are cut for, and whether phases are merged where they can be."""

    project: int
    attend: int
    warps: int = 8
    programs: int = 132
    merge: bool = True


def choose_tiles(sm_count: int, dtype: DType) -> Tiles:
    """For a device with so many multiprocessors."""
    large = sm_count >= 64
    return Tiles(
        project=16, attend=64 if sm_count >= 32 else 128, warps=4 if large and dtype != "float32" else 8,
        programs=sm_count, merge=dtype in ("float16", "int8"),
    )  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """Everything a launch needs except addresses. Offsets count elements of the buffer they point into."""

    dtype: DType
    batch: int
    steps: int
    results: int  # steps per sample that are given: S, or 1
    modalities: tuple[str, ...]
    outputs: tuple[tuple[str, int], ...]
    weights: NDArray[Any]  # flat; bfloat16 as its bits in uint16
    params: NDArray[np.float32]
    table: NDArray[np.int32]  # (entries, ROW); column TILE: row tiles
    phases: NDArray[np.int32]  # (phases, 2): first entry, entries
    stages: dict[str, tuple[int, int]]  # encoders, cross, final -> first phase, last (exclusive)
    buffers: dict[str, tuple[int, tuple[int, ...]]]  # name -> offset in the work buffer, shape
    work_size: int
    constants: dict[str, int | float | str]
    tiles: Tiles

    @property
    def logits(self) -> int:
        return sum(count for _, count in self.outputs)

    def launches(self, mode: str) -> list[tuple[int, int]]:
        """Phase ranges, one per launch: `persistent` (one), `staged` (three) or `phased` (no barrier needed)."""
        if mode == "persistent":
            return [(0, len(self.phases))]
        if mode == "staged":
            return list(self.stages.values())
        if mode == "phased":
            return [(i, i + 1) for i in range(len(self.phases))]
        raise ConfigError(f"unknown launch mode '{mode}': choose persistent, staged or phased")

    def plan(self, launches: Sequence[tuple[int, int]], programs: int) -> Plan:
        """See `make_plan`."""
        return make_plan(self.table, self.phases, launches, programs)


@dataclass
class _Builder:
    dtype: DType
    rows: int
    result_rows: int  # of all that follows the cross-attentions
    dim: int
    modalities: int
    tiles: Tiles
    matrices: list[NDArray[Any]] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    entries: list[list[int]] = field(default_factory=list)
    phases: list[tuple[int, int]] = field(default_factory=list)
    buffers: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    jobs: list[Callable[[int], None]] = field(default_factory=list)  # of the phase: make entries of so many tiles each
    sizes: list[Callable[[int], int]] = field(default_factory=list)  # and how many items that would be
    n_matrices: int = 0
    n_vectors: int = 0
    n_work: int = 0
    phase_start: int = 0
    outs: dict[int, int] = field(default_factory=dict)  # operation -> most tiles of an item

    def buffer(self, name: str, *shape: int) -> None:
        self.buffers[name] = (self.n_work, shape)
        self.n_work += _aligned(int(np.prod(shape)))

    def at(self, name: str, index: int = 0) -> int:
        """Offset of `buffer[index]`."""
        offset, shape = self.buffers[name]
        return offset + index * int(np.prod(shape[1:]))

    def vector(self, values: Array) -> int:
        flat = np.asarray(values, np.float32).ravel()
        start = self.n_vectors
        self.vectors.append(np.pad(flat, (0, _aligned(flat.size) - flat.size)))
        self.n_vectors += len(self.vectors[-1])
        return start

    def matrix(self, values: Array) -> tuple[int, int, Array]:
        """Pack an (out, in) matrix in blocks of 16 outputs by `dim` inputs; -> its offset, the offset of its per-row
        scales (0 unless INT8), and the sums over its rows as they are stored."""
        values = np.pad(values, ((0, -len(values) % _PACK), (0, 0)))
        packed, scales = quantise(values, self.dtype)
        units = values.shape[1] // self.dim
        flat = packed.reshape(-1, _PACK, units, self.dim).transpose(0, 2, 1, 3).ravel()
        start = self.n_matrices
        self.matrices.append(np.pad(flat, (0, _aligned(flat.size) - flat.size)))
        self.n_matrices += len(self.matrices[-1])
        return start, self.vector(scales) if self.dtype == "int8" else 0, decode(packed).sum(1) * scales

    def end_phase(self) -> None:
        """Cut the phase's work: as few tiles an item as give every program one, at most."""
        outs = 1
        most = 1 if self.dtype == "float32" else _MOST  # registers
        while outs < most and sum(size(outs) for size in self.sizes) > self.tiles.programs:
            outs += 1
        for job in self.jobs:
            job(outs)
        self.jobs, self.sizes = [], []
        self.phases.append((self.phase_start, len(self.entries) - self.phase_start))
        self.phase_start = len(self.entries)

    def _entry(self, tiles: int, *values: int) -> None:
        op, outs = values[0], values[3]
        self.outs[op] = max(self.outs.get(op, 1), outs)
        self.entries.append([*values, *([0] * (TILE - len(values))), tiles, *([-1] * (ROW - TILE - 1))])

    def _tiled(self, matrix: tuple[int, int, int], units: int, tiles: int, entry: Callable[..., None]) -> None:
        """A job: `entry(row tiles, w, outs, c, columns, scale)` for each item of a packed matrix (offset, scales,
        columns)."""
        w, scale, width = matrix
        step = self.tiles.project

        def job(outs: int) -> None:
            outs = outs if units == 1 else 1
            for c in range(0, width, step * outs):
                columns = min(step * outs, width - c)
                entry(tiles, w + c * units * self.dim, -(-columns // step), c, columns, scale + c)

        self.jobs.append(job)
        self.sizes.append(lambda outs: -(-width // (step * (outs if units == 1 else 1))) * tiles)

    def project(
        self,
        matrix: Array | tuple[int, int, int],
        bias: Array,
        x: int,
        out: int,
        *,
        rows: int,
        x_unit: int = 0,
        x_step: int = 1,
        stride: int | None = None,
        flags: int = 0,
        residual: int = -1,
        norm: int = -1,
        tokens: int = -1,
        side: int = -1,
        modality: int = 0,
    ) -> None:
        """`out[rows, width] = matrix @ x`, rows of `out` and `residual` `stride` apart (by default as wide as the
        matrix is high, filled up to 16).

        `matrix` may be (offset, scales, rows) of one packed before. `norm`, `tokens` are offsets in the parameters,
        `out`, `residual`, `side` in the work buffer, as is `x`, or in the features with `tokens`. The matrix's input
        is row r of `x`, at r `x_step` dim, then that of `x + x_unit`, and so on.
        """
        units = 1
        if isinstance(matrix, np.ndarray):
            units = matrix.shape[1] // self.dim
            offset, scales, _ = self.matrix(matrix)
            matrix = (offset, scales, _full(len(matrix)))
        biases = self.vector(np.pad(bias, (0, matrix[2] - len(bias))))
        op, table = (INPUT, tokens) if tokens >= 0 else (NORM, norm) if norm >= 0 else (PLAIN, 0)
        stride = matrix[2] if stride is None else stride

        def entry(tiles: int, w: int, outs: int, c: int, columns: int, scale: int) -> None:
            self._entry(
                tiles, op, w, units, outs, columns, biases + c, scale, out + c, stride, rows,
                x, x_unit, x_step, flags, residual + c if residual >= 0 else -1, table, side if c == 0 else -1, 0,
                modality,
            )  # fmt: skip

        self._tiled(matrix, units, -(-rows // _BM), entry)

    def layer(
        self, e: Encoder, bias: Array, q: int, k: int, v: int, q_stride: int, k_stride: int, out: int, side: int, *,
        length: int, row_step: int, batches: int, batch_step: int,
    ) -> None:  # fmt: skip
        """`side = LN1(k + attention + bias)`, `out = relu(w1 side + b1)`; rows as in `attend`, of `out` and `side` dim
        apart. The attention's values are in rows `q_stride` apart, like its queries."""
        gain, shift = e.norm1
        offset, scales, sums = self.matrix(e.w1 * gain)
        norm, before = self.vector(e.norm1), self.vector(bias)
        biases, wsum = self.vector(e.b1 + e.w1 @ shift), self.vector(sums)

        def entry(tiles: int, w: int, outs: int, c: int, columns: int, scale: int) -> None:
            self._entry(
                tiles, LAYER, w, 1, outs, columns, biases + c, scale, out + c, self.dim, batches,
                q, k, v, q_stride, k_stride, norm, side, c, before, wsum + c, length, row_step, batch_step,
            )  # fmt: skip

        self._tiled((offset, scales, self.dim), 1, batches * -(-length // _BM), entry)

    def cross(
        self, matrix: Array, bias: Array, q: int, out: int, query: int, keys: Sequence[tuple[int, int]], *,
        qsum: int, qbias: int, enc: int, norms: int, steps: int, results: int, rows: int,
    ) -> None:  # fmt: skip
        """For result row r, source `query` and each (key source, block) of `keys`: `out[block, r] = matrix @ t`, t the
        attended keys; `q` are queries before their norm, `enc` all sources' sums before theirs."""
        offset, scales, _ = self.matrix(matrix)
        biases, width = self.vector(bias), len(matrix)
        codes = [s + 256 * l for s, l in keys]

        def entry(tiles: int, w: int, outs: int, c: int, columns: int, scale: int) -> None:
            self._entry(
                tiles, CROSS, w, 1, outs, columns, biases + c, scale, out + c, width, rows,
                q, query, steps, results, enc, qsum, qbias, norms, *codes,
            )  # fmt: skip

        self._tiled((offset, scales, width), 1, rows, entry)

    def attend(
        self,
        q: int,
        k: int,
        v: int,
        out: int,
        *,
        heads: int,
        length: int,
        row_step: int,
        batches: int,
        batch_step: int,
        out_step: int | None = None,
        width: int | None = None,
        queries: int | None = None,
        bias: Array | None = None,
        residual: int = -1,
    ) -> None:
        """Entries for one attention, per head and tile of columns; row i of batch b is b·batch_step + i·row_step,
        of `out` and `residual` b·out_step + i·row_step."""
        width = self.dim if width is None else width
        head_dim = self.dim // heads
        step = min(self.tiles.attend, head_dim)
        queries = length if queries is None else queries
        biases = self.vector(bias) if bias is not None else -1
        tiles = batches * -(-queries // _BM)

        def job(_: int) -> None:
            for c in range(0, width, step):
                head = c // head_dim * head_dim if heads > 1 else 0
                self._entry(
                    tiles, ATTEND, 0, 1, 1, min(step, width - c), biases + c if biases >= 0 else -1, 0, out + c, 0,
                    batches, q + head, k + head, v + c, residual + c if residual >= 0 else -1, queries, length,
                    row_step, batch_step, width, batch_step if out_step is None else out_step,
                )  # fmt: skip

        self.jobs.append(job)

    def head(self, op: int, bias: int, *values: int) -> None:
        rows = self.result_rows
        self.jobs.append(lambda _: self._entry(rows, op, 0, 1, 1, 0, bias, 0, 0, 0, rows, *values))


def _full(n: int) -> int:
    """n filled up to whole blocks of packed rows."""
    return -(-n // _PACK) * _PACK


def _aligned(n: int) -> int:
    return -(-n // _ALIGN) * _ALIGN


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def quantise(values: Array, dtype: DType) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """A matrix as the kernels store it, and its per-row scales (ones unless INT8: max |row| / 127)."""
    ones = np.ones(len(values))
    if dtype == "int8":
        scales = np.abs(values).max(1) / 127
        scales = np.where(scales > 0, scales, 1.0).astype(np.float32).astype(np.float64)
        return np.clip(np.rint(values / scales[:, None]), -127, 127).astype(np.int8), scales
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16), ones  # to nearest, ties to even
    return values.astype(dtype), ones


def decode(packed: NDArray[Any]) -> Array:
    """What `quantise` stored, in float64, without its scales."""
    if packed.dtype == np.uint16:
        return (packed.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return packed.astype(np.float64)


def build_schedule(
    w: FusionWeights, batch: int, steps: int, dtype: DType, tiles: Tiles, *, last: bool = False
) -> Schedule:
    """Lay out weights, buffers and phases; `last`: for the last step's outputs alone.

    Raises ConfigError for a size or dtype the kernels do not serve.
    """
    w = _filled(w)
    m, d = len(w.modalities), w.dim
    length = len(w.blocks)
    if dtype not in DTYPES:
        raise ConfigError(f"unknown precision '{dtype}' for the fusion kernels: choose {', '.join(DTYPES)}")
    if not (1 <= steps <= MAX_STEPS and 1 <= batch <= MAX_BATCH):
        raise ConfigError(
            f"the fusion kernels serve 1 to {MAX_STEPS} steps and batches of 1 to {MAX_BATCH}, "
            f"not S = {steps}, B = {batch}; use the onnxruntime engine"
        )
    if d < 32 or d & (d - 1) or (d // w.heads) < 16:
        raise ConfigError(
            f"the fusion kernels need a width that is a power of two of at least 32 (16 per head), not {d} in "
            f"{w.heads} heads; use the onnxruntime engine"
        )
    results = 1 if last else steps
    b = _Builder(dtype, batch * steps, batch * results, d, m, tiles)
    merged = tiles.merge and w.heads == 1 and w.head == "self_attention"
    stages = (_merged if merged else _unmerged)(b, w, batch, steps, results)

    head_dim = d // w.heads
    longest = _power(max(steps, length if w.head == "self_attention" else 1, 16))
    slices = min(tiles.warps, head_dim // 16)
    constants: dict[str, int | float | str] = {
        "D": d, "M": m, "MP": max(2, _power(m)), "HEADS": w.heads, "BN": tiles.project,
        "BC": min(tiles.attend, head_dim), "KS": min(tiles.warps, d // 16), "SP": longest, "KSA": slices,
        "KA": max(16, min(head_dim // slices, 1024 // longest)), "LP": _power(length),
        "HP": max(16, _power(len(w.hidden))),
        "NO": max(2, _power(len(w.readout))),
        "OPS": sum(1 << op for op in {entry[0] for entry in b.entries}) | (_ABSOLUTE if w.joint_abs else 0),
        "NW": max(entry[2] * entry[3] for entry in b.entries), "LO": b.outs.get(LAYER, 1), "CO": b.outs.get(CROSS, 1),
        "PRECISION": "ieee", "EPS": w.eps,
    }  # fmt: skip
    return Schedule(
        dtype, batch, steps, results, w.modalities, w.outputs, np.concatenate(b.matrices), np.concatenate(b.vectors),
        np.array(b.entries, np.int32), np.array(b.phases, np.int32), stages, b.buffers, b.n_work, constants,
        tiles,
    )  # fmt: skip


def _merged(b: _Builder, w: FusionWeights, batch: int, steps: int, results: int) -> dict[str, tuple[int, int]]:
    """The stages' ranges of phases, for one head and the head self_attention."""
    assert w.final is not None and w.last is not None
    n, m, d, rows, given, order = w.sources, len(w.modalities), w.dim, b.rows, b.result_rows, w.blocks
    length, hidden = len(order), len(w.hidden)
    b.buffer("source", n, rows, d)
    b.buffer("qv", n, rows, 2 * d)
    for name in ("mid_norm", "ffn", "enc"):
        b.buffer(name, n, rows, d)
    b.buffer("cross_q", n, given, d)
    b.buffer("z", length, given, 3 * d)  # the blocks, and their queries and values in the final encoder
    for name in ("final_mid_norm", "final_ffn", "final_enc"):
        b.buffer(name, length, given, d)
    b.buffer("last_q", given, d)
    b.buffer("last_v", length, given, hidden)

    tokens = b.vector(w.tokens)
    biases = []
    for s, encoder in enumerate(w.encoders):
        a = encoder.attention
        of_features, constant, x, options = _source(b, w, tokens, s)
        if s == m:
            b.project(w.joint, w.joint_bias, x, b.at("source", s), **options)
        stacked = np.concatenate([a.query, _matrix(a.value)])
        through = stacked @ constant
        b.project(
            of_features(stacked), np.concatenate([through[:d] + a.query_bias, np.zeros(d)]), x, b.at("qv", s),
            side=-1 if s == m else b.at("source", s), **options,
        )  # fmt: skip
        biases.append(a.bias + through[d:])
    b.end_phase()
    for s, encoder in enumerate(w.encoders):
        qv = b.at("qv", s)
        b.layer(
            encoder, biases[s], qv, b.at("source", s), qv + d, 2 * d, d, b.at("ffn", s), b.at("mid_norm", s),
            length=steps, row_step=1, batches=batch, batch_step=steps,
        )  # fmt: skip
    b.end_phase()
    stages = {"encoders": (0, len(b.phases))}

    for s, e in enumerate(w.encoders):
        b.project(
            _behind(e, w.cross[s].query), w.cross[s].query @ (e.norm2[0] * e.b2),
            b.at("mid_norm", s) + (steps - results) * d, b.at("cross_q", s), rows=given,
            x_unit=b.at("ffn", s) - b.at("mid_norm", s), x_step=steps // results,
        )  # fmt: skip
        b.project(e.w2, e.b2, b.at("ffn", s), b.at("enc", s), rows=rows, residual=b.at("mid_norm", s))
    b.end_phase()
    norms = b.vector(np.stack([e.norm2 for e in w.encoders]))
    inner = w.final.attention
    for s, (e, a) in enumerate(zip(w.encoders, w.cross)):
        through = np.concatenate([np.eye(d), inner.query, _matrix(inner.value)])
        b.cross(
            through @ _matrix(a.value), through @ a.bias + np.concatenate([np.zeros(d), inner.query_bias, np.zeros(d)]),
            b.at("cross_q", s), b.at("z"), s, [(key, l) for l, (query, key) in enumerate(order) if query == s],
            qsum=b.vector(a.query @ e.norm2[0]), qbias=b.vector(a.query @ e.norm2[1] + a.query_bias),
            enc=b.at("enc"), norms=norms, steps=steps, results=results, rows=given,
        )  # fmt: skip
    b.end_phase()
    stages["cross"] = (stages["encoders"][1], len(b.phases))

    e, z = w.final, b.at("z")
    b.layer(
        e, inner.bias, z + d, z, z + 2 * d, 3 * d, 3 * d, b.at("final_ffn"), b.at("final_mid_norm"),
        length=length, row_step=given, batches=given, batch_step=1,
    )  # fmt: skip
    b.end_phase()
    values = w.hidden if w.last.value is None else w.hidden @ w.last.value
    step = b.at("final_ffn") - b.at("final_mid_norm")
    b.project(
        _behind(e, w.last.query), w.last.query @ (e.norm2[0] * e.b2), b.at("final_mid_norm", length - 1),
        b.at("last_q"), rows=given, x_unit=step,
    )  # fmt: skip
    b.project(
        _behind(e, values), values @ (e.norm2[0] * e.b2), b.at("final_mid_norm"), b.at("last_v"),
        rows=length * given, x_unit=step,
    )  # fmt: skip
    b.project(
        e.w2, e.b2, b.at("final_ffn"), b.at("final_enc"), rows=length * given, residual=b.at("final_mid_norm")
    )  # fmt: skip
    b.end_phase()
    gain, shift = e.norm2
    b.head(
        LAST, b.vector(w.hidden @ w.last.bias + w.hidden_bias + values @ shift),
        b.at("last_q"), b.at("final_enc"), b.at("last_v"), b.vector(w.last.query @ gain),
        b.vector(w.last.query @ shift + w.last.query_bias), b.vector(gain), b.vector(values @ gain),
        hidden, len(w.readout), b.vector(w.readout), b.vector(w.readout_bias),
        b.vector(np.array([s for _, s in order], np.float64)), rows // given, length,
    )  # fmt: skip
    b.end_phase()
    stages["final"] = (stages["cross"][1], len(b.phases))
    return stages


def _behind(e: Encoder, matrix: Array) -> Array:
    """`matrix @ (gain * e)` for the sums e = m + w2 h + b2 before an encoder's last norm, as a matrix on [m, h]."""
    scaled = matrix * e.norm2[0]
    return np.concatenate([scaled, scaled @ e.w2], 1)


def _filled(w: FusionWeights) -> FusionWeights:
    """With as many hidden units as fill whole blocks: those added give zero and are read with zero."""
    more = -len(w.hidden) % _PACK
    return replace(
        w, hidden=np.pad(w.hidden, ((0, more), (0, 0))), hidden_bias=np.pad(w.hidden_bias, (0, more)),
        readout=np.pad(w.readout, ((0, 0), (0, more))),
    )  # fmt: skip


def _unmerged(b: _Builder, w: FusionWeights, batch: int, steps: int, results: int) -> dict[str, tuple[int, int]]:
    """The stages' ranges of phases."""
    n, d, order, rows, hidden = w.sources, w.dim, w.blocks, b.rows, len(w.hidden)
    length = len(order)
    for name in ("source", "q", "v", "mid", "mid_norm", "ffn", "enc", "y", "cross_q"):
        b.buffer(name, n, rows, d)
    multi = w.heads > 1
    if multi:
        b.buffer("k", n, rows, d)
        b.buffer("context", n, rows, d)
        b.buffer("cross_k", length, rows, d)
        b.buffer("cross_context", length, b.result_rows, d)
    steps_of = {"length": steps, "row_step": 1, "batches": batch, "batch_step": steps}
    zero = np.zeros(d)

    _encoders(b, w, steps_of)
    stages = {"encoders": (0, len(b.phases))}
    norms = [b.vector(e.norm2) for e in w.encoders]

    # cross: one query per source, the other sources' values under that source's matrices
    folds = _concat_folds(w) if w.head == "concat" else None
    width = hidden if folds is not None and not multi else d
    b.buffer("cross_v", length, rows, width)
    b.buffer("z", length, b.result_rows, hidden if folds is not None else d)
    shared: dict[tuple[int, str], tuple[int, int, int]] = {}
    for a in range(n):
        # of all rows even where one is used: up to 16 need the same weight bytes, and the keys are normalised here
        b.project(
            w.cross[a].query, w.cross[a].query_bias, b.at("enc", a), b.at("cross_q", a),
            rows=rows, norm=norms[a], side=b.at("y", a),
        )  # fmt: skip
        for name in ("value", "key"):
            matrix = getattr(w.cross[a], name)
            if matrix is not None and not (name == "value" and folds is not None and not multi):
                shared[a, name] = (*b.matrix(matrix)[:2], len(matrix))
    for l, (a, s) in enumerate(order):
        if folds is not None and not multi:
            b.project(folds[0][l], np.zeros(hidden), b.at("enc", s), b.at("cross_v", l), rows=rows, norm=norms[s])
        else:
            b.project(shared[a, "value"], zero, b.at("enc", s), b.at("cross_v", l), rows=rows, norm=norms[s])
        if multi:
            b.project(shared[a, "key"], zero, b.at("enc", s), b.at("cross_k", l), rows=rows, norm=norms[s])
    b.end_phase()
    for l, (a, s) in enumerate(order):
        keys = b.at("cross_k", l) if multi else b.at("y", s)
        out = b.at("cross_context" if multi else "z", l)
        bias = None if multi or folds is not None else w.cross[a].bias
        b.attend(
            b.at("cross_q", a) + (steps - results) * d, keys, b.at("cross_v", l), out,
            heads=w.heads, width=width, queries=results, out_step=results, bias=bias, **steps_of,
        )  # fmt: skip
    b.end_phase()
    if multi:
        packed = {a: (*b.matrix(_matrix(w.cross[a].out))[:2], d) for a in range(n)} if folds is None else {}
        for l, (a, _) in enumerate(order):
            matrix, bias = (packed[a], w.cross[a].bias) if folds is None else (folds[0][l], np.zeros(hidden))
            b.project(matrix, bias, b.at("cross_context", l), b.at("z", l), rows=b.result_rows)
        b.end_phase()
    stages["cross"] = (stages["encoders"][1], len(b.phases))

    if folds is not None:
        _finish(b, w, q=-1, k=0, v=b.at("z"), norm=-1, terms=length, bias=folds[1])
    else:
        _final(b, w, length)
    stages["final"] = (stages["cross"][1], len(b.phases))
    return stages


def _source(
    b: _Builder, w: FusionWeights, tokens: int, s: int
) -> tuple[Callable[[Array], Array], Array, int, dict[str, int]]:
    """How to read source `s` from the features: the matrix on them for a matrix on it, its constant, where they are,
    and options of `project`.

    The joint's constant adds to the queries', through the key it cancels in the softmax, through the value it passes
    unchanged because the softmax's rows sum to one.
    """
    at, options = s * b.rows * b.dim, {"rows": b.rows, "tokens": tokens}
    if s < len(w.modalities):
        return lambda matrix: matrix, np.zeros(b.dim), at, options | {"modality": s}
    flags = ABS if w.joint_abs else 0
    return lambda matrix: matrix @ w.joint, w.joint_bias, 0, options | {"x_unit": b.rows * b.dim, "flags": flags}


def _encoders(b: _Builder, w: FusionWeights, steps_of: dict[str, int]) -> None:
    m, rows = len(w.modalities), b.rows
    multi, zero = w.heads > 1, np.zeros(b.dim)
    tokens = b.vector(w.tokens)
    _, _, x, options = _source(b, w, tokens, m)
    b.project(w.joint, w.joint_bias, x, b.at("source", m), **options)
    biases = []
    for s, encoder in enumerate(w.encoders):
        a = encoder.attention
        of_features, constant, x, options = _source(b, w, tokens, s)
        side = b.at("source", s) if s < m else -1
        b.project(of_features(a.query), a.query @ constant + a.query_bias, x, b.at("q", s), side=side, **options)
        b.project(of_features(_matrix(a.value)), zero, x, b.at("v", s), **options)
        if a.key is not None:
            b.project(of_features(a.key), zero, x, b.at("k", s), **options)
        through = _matrix(a.value) @ constant
        biases.append(a.bias + (through if a.out is None else a.out @ through))
    b.end_phase()
    for s in range(w.sources):
        b.attend(
            b.at("q", s), b.at("k" if multi else "source", s), b.at("v", s), b.at("context" if multi else "mid", s),
            heads=w.heads, bias=None if multi else biases[s], residual=-1 if multi else b.at("source", s), **steps_of,
        )  # fmt: skip
    b.end_phase()
    if multi:
        for s, encoder in enumerate(w.encoders):
            b.project(
                _matrix(encoder.attention.out), biases[s], b.at("context", s), b.at("mid", s),
                rows=rows, residual=b.at("source", s),
            )  # fmt: skip
        b.end_phase()
    _feed_forward(
        b, [(e, b.at("mid", s), b.at("mid_norm", s), b.at("ffn", s), b.at("enc", s)) for s, e in enumerate(w.encoders)],
        rows,
    )  # fmt: skip


def _feed_forward(b: _Builder, layers: Sequence[tuple[Encoder, int, int, int, int]], rows: int) -> None:
    """Two phases: LN1, w1, ReLU; then w2 and the residual. The LayerNorm after it is the reader's work."""
    for e, mid, mid_norm, ffn, _ in layers:
        b.project(e.w1, e.b1, mid, ffn, rows=rows, flags=RELU, norm=b.vector(e.norm1), side=mid_norm)
    b.end_phase()
    for e, _, mid_norm, ffn, out in layers:
        b.project(e.w2, e.b2, ffn, out, rows=rows, residual=mid_norm)
    b.end_phase()


def _concat_folds(w: FusionWeights) -> tuple[list[Array], Array]:
    """Per block the matrix from its attended values to the hidden layer, and the hidden layer's whole bias."""
    parts = np.split(w.hidden, len(w.blocks), axis=1)
    bias = w.hidden_bias + sum(part @ w.cross[a].bias for part, (a, _) in zip(parts, w.blocks))
    attended = [w.cross[a].value if w.heads == 1 else w.cross[a].out for a, _ in w.blocks]
    return [part if last is None else part @ last for part, last in zip(parts, attended)], bias


def _matrix(matrix: Array | None) -> Array:
    assert matrix is not None  # only a concat head folds a matrix away, and only in the cross-attentions
    return matrix


def _final(b: _Builder, w: FusionWeights, length: int) -> None:
    assert w.final is not None and w.last is not None
    rows, d, hidden, e, last = b.result_rows, b.dim, len(w.hidden), w.final, w.last
    every = length * rows  # the L blocks of all results
    multi = w.heads > 1
    blocks_of = {"length": length, "row_step": rows, "batches": rows, "batch_step": 1}
    for name in ("final_q", "final_v", "final_mid", "final_mid_norm", "final_ffn", "final_enc"):
        b.buffer(name, length, rows, d)
    b.buffer("last_q", rows, d)
    zero, a = np.zeros(d), e.attention
    b.project(a.query, a.query_bias, b.at("z"), b.at("final_q"), rows=every)
    b.project(_matrix(a.value), zero, b.at("z"), b.at("final_v"), rows=every)
    if a.key is not None:
        b.buffer("final_k", length, rows, d)
        b.buffer("final_context", length, rows, d)
        b.project(a.key, zero, b.at("z"), b.at("final_k"), rows=every)
    b.end_phase()
    b.attend(
        b.at("final_q"), b.at("final_k" if multi else "z"), b.at("final_v"),
        b.at("final_context" if multi else "final_mid"), heads=w.heads, bias=None if multi else a.bias,
        residual=-1 if multi else b.at("z"), **blocks_of,
    )  # fmt: skip
    b.end_phase()
    if multi:
        b.project(_matrix(a.out), a.bias, b.at("final_context"), b.at("final_mid"), rows=every, residual=b.at("z"))
        b.end_phase()
    layer = (e, b.at("final_mid"), b.at("final_mid_norm"), b.at("final_ffn"), b.at("final_enc"))
    _feed_forward(b, [layer], every)

    norm = b.vector(e.norm2)
    bias = w.hidden @ last.bias + w.hidden_bias
    b.project(last.query, last.query_bias, b.at("final_enc", length - 1), b.at("last_q"), rows=rows, norm=norm)
    if last.key is None:
        b.buffer("last_v", length, rows, hidden)
        b.project(
            w.hidden if last.value is None else w.hidden @ last.value,
            np.zeros(hidden),
            b.at("final_enc"),
            b.at("last_v"),
            rows=every,
            norm=norm,
        )
        b.end_phase()
        _finish(b, w, q=b.at("last_q"), k=b.at("final_enc"), v=b.at("last_v"), norm=norm, terms=length, bias=bias)
        return
    b.buffer("last_k", length, rows, d)
    b.buffer("last_v", length, rows, d)
    b.buffer("last_context", rows, d)
    b.buffer("last_hidden", rows, hidden)
    b.project(last.key, zero, b.at("final_enc"), b.at("last_k"), rows=every, norm=norm)
    b.project(_matrix(last.value), zero, b.at("final_enc"), b.at("last_v"), rows=every, norm=norm)
    b.end_phase()
    b.attend(
        b.at("last_q"), b.at("last_k"), b.at("last_v"), b.at("last_context"),
        heads=w.heads, bias=None, queries=1, **blocks_of,
    )  # fmt: skip
    b.end_phase()
    b.project(w.hidden @ _matrix(last.out), np.zeros(hidden), b.at("last_context"), b.at("last_hidden"), rows=rows)
    b.end_phase()
    _finish(b, w, q=b.at("last_q"), k=b.at("last_k"), v=b.at("last_hidden"), norm=-1, terms=1, bias=bias)


def _finish(b: _Builder, w: FusionWeights, *, q: int, k: int, v: int, norm: int, terms: int, bias: Array) -> None:
    owner = b.vector(np.array([s for _, s in w.blocks], np.float64))
    b.head(
        HEAD, 0, q, k, v, norm, len(w.blocks), terms, len(w.hidden), len(w.readout), b.vector(bias),
        b.vector(w.readout), b.vector(w.readout_bias), owner, b.rows // b.result_rows,
    )  # fmt: skip
    b.end_phase()
