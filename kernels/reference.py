"""The fusion's stages in plain PyTorch, one function per stage of the kernels, and the same table run by NumPy.

What a kernel must compute is here; how fast and in which order is `fusion.py`'s. Each stage has the kernels'
boundary: the LayerNorm that ends an encoder layer belongs to whoever reads it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from .schedule import ABS, ATTEND, CROSS, HEAD, INPUT, LAST, LAYER, NORM, RELU, Schedule, decode
from .weights import Array, Attention, Encoder, FusionWeights


class Reference:
    """The fusion of `weights` in `dtype` on `device`, eager."""

    def __init__(self, weights: FusionWeights, dtype: torch.dtype, device: str = "cpu") -> None:
        self.w, self.dtype, self.device = weights, dtype, device
        self._cache: dict[int, Tensor] = {}

    def t(self, array: Array) -> Tensor:
        if id(array) not in self._cache:
            self._cache[id(array)] = torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.dtype)
        return self._cache[id(array)]

    def encoders(self, features: Tensor, present: Tensor) -> Tensor:
        """features (M, B, S, d), present (B, S, M) -> sums before each encoder's last norm, (N, B, S, d)."""
        here = present.movedim(-1, 0)[..., None] > 0.5
        features = torch.where(here, features.to(self.dtype), self.t(self.w.tokens)[:, None, None])
        both = torch.cat(list(features), -1)
        both = both.abs() if self.w.joint_abs else both
        joint = F.linear(both, self.t(self.w.joint), self.t(self.w.joint_bias))
        return torch.stack([self._layer(e, x) for e, x in zip(self.w.encoders, [*features, joint])])

    def cross(self, sums: Tensor, last: bool = False) -> Tensor:
        """Encoders' sums (N, B, S, d) -> blocks (L, B, S, d), query source and key/value source by `w.blocks`; with
        `last` those of the last step, (L, B, 1, d)."""
        y = [self._norm(e.norm2, x) for e, x in zip(self.w.encoders, sums)]
        x = [rows[:, -1:] for rows in y] if last else y
        return torch.stack([self._attention(self.w.cross[a], x[a], y[b])[0] for a, b in self.w.blocks])

    def final(self, z: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks (L, B, S, d) -> logits (B, S, outputs) and attention (B, S, M)."""
        w = self.w
        attention = torch.zeros_like(present, dtype=self.dtype)
        if w.head == "concat":
            out = torch.cat(list(z), -1)
        else:
            assert w.final is not None and w.last is not None
            tokens = z.movedim(0, 2)  # (B, S, L, d)
            e = self._norm(w.final.norm2, self._layer(w.final, tokens))
            out, weights = self._attention(w.last, e[..., -1:, :], e)
            out, attention = out[..., 0, :], self._share(weights[..., 0, :], present)
        h = F.linear(out, self.t(w.hidden), self.t(w.hidden_bias)).relu()
        return F.linear(h, self.t(w.readout), self.t(w.readout_bias)), attention

    def __call__(self, features: Tensor, present: Tensor, last: bool = False) -> tuple[Tensor, Tensor]:
        """features (M, B, S, d), present (B, S, M) -> logits and attention of every step, or of the last, S = 1."""
        sums = self.encoders(features, present)
        return self.final(self.cross(sums, last), present[:, -1:] if last else present)

    def _attention(self, a: Attention, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x (..., S, d) attends to y (..., T, d) -> (..., S, d) and weights (..., S, T), their mean over heads."""
        q = F.linear(x, self.t(a.query), self.t(a.query_bias))
        k = y if a.key is None else F.linear(y, self.t(a.key))
        v = y if a.value is None else F.linear(y, self.t(a.value))
        q, k, v = (t.reshape(*t.shape[:-1], self.w.heads, -1).transpose(-3, -2) for t in (q, k, v))
        weights = torch.softmax(q @ k.transpose(-1, -2), -1)
        out = (weights @ v).transpose(-3, -2).flatten(-2)
        if a.out is not None:
            out = F.linear(out, self.t(a.out))
        return out + self.t(a.bias), weights.mean(-3)

    def _layer(self, e: Encoder, x: Tensor) -> Tensor:
        x = self._norm(e.norm1, x + self._attention(e.attention, x, x)[0])
        return x + F.linear(F.linear(x, self.t(e.w1), self.t(e.b1)).relu(), self.t(e.w2), self.t(e.b2))

    def _norm(self, norm: Array, x: Tensor) -> Tensor:
        gain, shift = self.t(norm)
        return F.layer_norm(x, (self.w.dim,), gain, shift, self.w.eps)

    def _share(self, weights: Tensor, present: Tensor) -> Tensor:
        """Weights over the L blocks -> over modalities: by key source, the joint's share split over those present."""
        m = len(self.w.modalities)
        mine = [[i for i, (_, source) in enumerate(self.w.blocks) if source == s] for s in range(m + 1)]
        shares = torch.stack([torch.stack([weights[..., i] for i in blocks], -1).sum(-1) for blocks in mine], -1)
        here = (present > 0.5).to(weights.dtype)
        share = here * (shares[..., :m] + shares[..., m:] / here.sum(-1, keepdim=True).clamp(min=1))
        return share / share.sum(-1, keepdim=True).clamp(min=1e-6)


def run_table(
    s: Schedule, features: NDArray[np.float64], present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run a schedule's own table in float64 NumPy: logits (B, R, outputs) and attention (B, R, M), R = `s.results`.

    Independent of Triton. With INT8 weights it is the exact answer for the quantised matrices.
    """
    d, m, rows = int(s.constants["D"]), len(s.modalities), s.batch * s.steps
    heads, columns = int(s.constants["HEADS"]), np.arange(int(s.constants["D"]))
    weights = decode(s.weights)
    params, here = s.params.astype(np.float64), present.reshape(rows, m) > 0.5
    work, given = np.full(s.work_size, np.nan), np.asarray(features, np.float64).ravel()
    logits, attention = np.zeros((s.batch * s.results, s.logits)), np.zeros((s.batch * s.results, m))

    def deviation(x: Array) -> Array:
        return np.sqrt(x.var(-1, keepdims=True) + float(s.constants["EPS"]))

    def standard(x: Array) -> Array:
        return (x - x.mean(-1, keepdims=True)) / deviation(x)

    def norm(x: Array, offset: int) -> Array:
        return standard(x) * params[offset : offset + d] + params[offset + d : offset + 2 * d]

    def share(p: Array, there: Array, own: Array) -> Array:
        """Weights over the blocks -> over the modalities."""
        found = there * (
            np.array([p[own == source].sum() for source in range(m)]) + p[own == m].sum() / max(there.sum(), 1)
        )
        return found / max(found.sum(), 1e-12)

    def finish(row: int, hidden: Array, outputs: int, readout: int, read_bias: int) -> None:
        last = params[readout : readout + outputs * len(hidden)].reshape(outputs, -1)
        logits[row] = last @ np.maximum(hidden, 0) + params[read_bias : read_bias + outputs]

    def matrix(e: list[int]) -> Array:
        """An entry's matrix, (columns, units * d), with its scales."""
        w, units, cols, scale = e[1], e[2], e[4], e[6]
        blocks = weights[w : w + -(-cols // 16) * 16 * units * d].reshape(-1, units, 16, d)
        outputs = blocks.transpose(0, 2, 1, 3).reshape(-1, units * d)[:cols]
        return outputs * params[scale + np.arange(cols), None] if s.dtype == "int8" else outputs

    for first, count in s.phases:
        for e in s.table[first : first + count].tolist():
            op, _, units, _, cols, bias, _, out, stride, n = e[:10]
            c = np.arange(cols)

            if op == ATTEND:
                q, k, v, residual, q_len, k_len, row_step, step, width, out_step = e[10:20]
                for batch in range(n):
                    i = (batch * step + np.arange(q_len) * row_step)[:, None]
                    j = (batch * step + np.arange(k_len) * row_step)[:, None]
                    o = (batch * out_step + np.arange(q_len) * row_step)[:, None]
                    inner = np.arange(d // heads)
                    p = softmax(work[q + i * d + inner] @ work[k + j * d + inner].T, -1)
                    y = p @ work[v + j * width + c]
                    if bias >= 0:
                        y += params[bias + c]
                    if residual >= 0:
                        y += work[residual + o * width + c]
                    work[out + o * width + c] = y
            elif op == LAYER:
                q, k, v, q_stride, k_stride, gain, side, col, before, _, length, row_step, step = e[10:23]
                for batch in range(n):
                    i = (batch * step + np.arange(length) * row_step)[:, None]
                    x = work[k + i * k_stride + columns]
                    y = softmax(work[q + i * q_stride + columns] @ x.T, -1) @ work[v + i * q_stride + columns]
                    y = standard(x + y + params[before + columns])
                    work[out + i * d + c] = np.maximum(y @ matrix(e).T + params[bias + c], 0)
                    y = y * params[gain + columns] + params[gain + d + columns]
                    work[side + col + i * d + c] = y[:, col + c]
            elif op == CROSS:
                q, query, steps, results, enc, qsum, qbias, norms, *codes = e[10 : 18 + m]
                for r in range(n):
                    begin = r // results * steps
                    last = work[enc + (query * rows + begin + steps - results + r % results) * d + columns]
                    x = (work[q + r * d + columns] - last.mean() * params[qsum + columns]) / deviation(last)
                    x += params[qbias + columns]
                    for code in codes:
                        key, block = code % 256, code // 256
                        y = norm(work[enc + (key * rows + begin + np.arange(steps))[:, None] * d + columns],
                                 norms + key * 2 * d)  # fmt: skip
                        work[out + (block * n + r) * stride + c] = (softmax(y @ x, -1) @ y) @ matrix(e).T + params[
                            bias + c
                        ]
            elif op == LAST:
                q, k, v, qsum, qbias, gain, vsum, hidden, outputs, readout, read_bias, owner, span, blocks = e[10:24]
                for row in range(n):
                    keys = work[k + ((np.arange(blocks) * n + row) * d)[:, None] + columns]
                    x = work[q + row * d + columns] - keys[-1].mean() * params[qsum + columns]
                    x = (x / deviation(keys[-1]) + params[qbias + columns]) * params[gain + columns]
                    p = softmax(standard(keys) @ x, -1)
                    o = np.arange(hidden)
                    y = work[v + ((np.arange(blocks) * n + row) * hidden)[:, None] + o]
                    y = (y - keys.mean(1)[:, None] * params[vsum + o]) / deviation(keys)
                    finish(row, p @ y + params[bias + o], outputs, readout, read_bias)
                    attention[row] = share(p, here[row * span + span - 1], params[owner : owner + blocks])
            elif op == HEAD:
                q, k, v, gain, blocks, terms, hidden, outputs, bias, readout, read_bias, owner, span = e[10:23]
                for row in range(n):
                    mix = np.ones(terms)
                    if q >= 0:
                        keys = work[k + ((np.arange(blocks) * n + row) * d)[:, None] + columns]
                        keys = norm(keys, gain) if gain >= 0 else keys
                        products = (work[q + row * d + columns] * keys).reshape(blocks, heads, -1)
                        p = softmax(products.sum(-1).T, -1).mean(0)
                        mix = p if terms == blocks else mix
                        attention[row] = share(p, here[row * span + span - 1], params[owner : owner + blocks])
                    h = mix @ work[v + ((np.arange(terms) * n + row) * hidden)[:, None] + np.arange(hidden)]
                    finish(row, h + params[bias : bias + hidden], outputs, readout, read_bias)
            else:
                x, x_unit, x_step, flags, residual, table, side, _, modality = e[10:19]
                each = np.arange(n)[:, None]
                source = given if op == INPUT else work
                parts = [source[x + part * x_unit + each * x_step * d + columns] for part in range(units)]
                if op == INPUT:
                    tokens = params[table : table + m * d].reshape(m, d)
                    parts = [
                        np.where(here[:, [modality + i]], part, tokens[modality + i]) for i, part in enumerate(parts)
                    ]
                    parts = [np.abs(part) for part in parts] if flags & ABS else parts
                elif op == NORM:
                    parts = [norm(parts[0], table)]
                y = np.concatenate(parts, 1) @ matrix(e).T + params[bias + c]
                y = np.maximum(y, 0) if flags & RELU else y
                if residual >= 0:
                    y += work[residual + each * stride + c]
                work[out + each * stride + c] = y
                if side >= 0:
                    work[side + each * d + columns] = parts[0]
    return logits.reshape(s.batch, s.results, -1), attention.reshape(s.batch, s.results, m)
