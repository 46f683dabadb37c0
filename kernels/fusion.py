"""The whole joint fusion as Triton device code: a few operations, one kernel, a plan of work.

Every program walks its own rows of a plan (`schedule.Schedule.plan`): a row is one item, an operation on a tile, and
says which counter to wait for before it and which to raise after it. Items of one phase are independent; a phase's
counter tells how many of its programs are done. A launch of several phases must be cooperative (every program resident
at once), a launch of a single phase waits for nothing.

What is constant (the row, its weights) is loaded before the wait, so that after it one trip to L2, for activations,
is left: on an H200 it is these trips, not bytes, that a batch of one pays for.

- PROJECT: `out = relu?(norm?(x) @ w.T * scale + bias) + residual?` for 16 rows and BN columns; either several parts of
  the input are added (`units`), or several column tiles share it (`outs`). The input dimension is split over the warps
  (a batched dot), then summed in a fixed order.
- LAYER: `softmax(q k^T) v + bias + k`, its LayerNorm, the first feed-forward matrix and ReLU. Every program of a row
  tile computes the attention again: cheaper than a phase of its own.
- CROSS: for one query source and one result, each key source's attention, then BN columns of the matrices on it.
- LAST: the last query's softmax over the blocks, the hidden layer, ReLU, the output neurons, and the attention of
  each modality.
- ATTEND, HEAD: an attention and a last step without LayerNorm around them: several heads, and the concat head.

No sum depends on B or on the number of programs and there are no float atomics: a sample's result is the same
bit for bit in any batch and on every run. Arithmetic: operands in the activation dtype, sums, softmax and
LayerNorm in float32; `ieee` dots for float32; INT8 weights are widened to the activation dtype and scaled per
output column after the dot.

References: JMT, arXiv 2403.10488v2, section 3; `reference.py` holds the same stages in plain PyTorch.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (device functions have no Python types: Triton gives them theirs)
from __future__ import annotations

import triton
import triton.language as tl

INPUT = tl.constexpr(0)  # PROJECT of features: a row whose modality is absent is replaced by the learnt token
NORM = tl.constexpr(1)  # PROJECT of LayerNorm(x)
PLAIN = tl.constexpr(2)  # PROJECT of x as it stands
ATTEND = tl.constexpr(3)
HEAD = tl.constexpr(4)
LAYER = tl.constexpr(5)
CROSS = tl.constexpr(6)
LAST = tl.constexpr(7)

ROW = tl.constexpr(32)  # int32 per row of the plan: a cache line
BM = tl.constexpr(16)  # rows per tile: the smallest a tensor-core instruction takes
RELU = tl.constexpr(1)  # flags of a PROJECT entry
ABS = tl.constexpr(2)
POLLS = tl.constexpr(1 << 23)  # of a counter, a few seconds: then the launch is given up


@triton.jit
def _by16(offset):
    """The same offset, which is a multiple of 16, so that the compiler sees it: then it loads 16 bytes at once."""
    return (offset >> 4) * 16


@triton.jit
def _add2(a0, a1, b0, b1):
    return a0 + b0, a1 + b1


@triton.jit
def _add3(a0, a1, a2, b0, b1, b2):
    return a0 + b0, a1 + b1, a2 + b2


@triton.jit
def _moments(b_x, D: tl.constexpr, EPS: tl.constexpr):
    """Mean and 1 / deviation of each row of b_x [rows, D], in one pass over the threads."""
    b_sum, b_squares = tl.reduce((b_x, b_x * b_x), 1, _add2)
    b_mean = b_sum / D
    return b_mean, tl.rsqrt(tl.maximum(b_squares / D - b_mean * b_mean, 0) + EPS)


@triton.jit
def _dot(b_x, b_w, p_work, PRECISION: tl.constexpr, COMPILED: tl.constexpr):
    """[KS, BM, K] @ [KS, K, N] -> float32 [KS, BM, N]; sums over KS are the caller's."""
    b_x, b_w = b_x.to(p_work.dtype.element_ty), b_w.to(p_work.dtype.element_ty)
    if not COMPILED:  # the interpreter's dot has no bfloat16; products of 16 bits are exact in float32
        b_x, b_w = b_x.to(tl.float32), b_w.to(tl.float32)
    return tl.dot(b_x, b_w, input_precision=PRECISION)


@triton.jit
def _weights(p_weights, w, units, tile: tl.constexpr, tiles, cols, D: tl.constexpr, BN: tl.constexpr, KS: tl.constexpr):
    """The item's weights number `tile`, [KS, KC, BN]; they are packed in blocks of 16 outputs by D inputs."""
    KC: tl.constexpr = D // KS
    o_n = tl.arange(0, BN)
    part = tl.where(units > 1, tile, 0)  # of the input, or else of the outputs
    column = tl.where(units > 1, 0, tile * BN)
    o_s, o_k = tl.arange(0, KS)[:, None, None] * KC, tl.arange(0, KC)
    o_row = ((o_n // 16) * units + part) * (16 * D) + (o_n % 16) * D + column * D
    mask = (tile < tiles) & (o_n >= 0)
    if BN > 16:  # packed rows are filled up to 16
        mask = mask & (column + o_n < cols)
    p_w = p_weights + w + o_row[None, None, :] + o_s + o_k[None, :, None]
    return tl.load(p_w, mask=mask[None, None, :], other=0)


@triton.jit
def _input(
    p_x, p_params, p_present, f, o_r, m_r, part: tl.constexpr, parts, n_rows,
    OP: tl.constexpr, OPS: tl.constexpr, D: tl.constexpr, M: tl.constexpr, KS: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """[KS, BM, KC] of part `part` of an item's input, in its dtype, or float32 where it is worked on."""
    KC: tl.constexpr = D // KS
    x, x_unit, x_step = f[10], f[11], f[12]
    table, modality = f[15], f[18]
    x, x_unit, table = _by16(x), _by16(x_unit), _by16(table)
    o_s, o_k = tl.arange(0, KS)[:, None, None] * KC, tl.arange(0, KC)[None, None, :]
    mask = m_r & (part < parts)
    o_x = x + part * x_unit + (o_r * x_step)[None, :, None] * D + o_s + o_k
    b_x = tl.load(p_x + o_x, mask=mask[None, :, None], other=0, cache_modifier=".cg")
    if OP == INPUT:
        b_here = tl.load(p_present + o_r * M + modality + part, mask=mask, other=1)
        b_token = tl.load(p_params + table + (modality + part) * D + o_s + o_k, mask=part < parts, other=0)
        b_x = tl.where(b_here[None, :, None] > 0.5, b_x.to(tl.float32), b_token)
        if OPS & 256:  # the joint's; the others' own features are not
            b_x = tl.where(f[13] & ABS != 0, tl.abs(b_x), b_x)
    if OP == NORM:
        b_x = b_x.to(tl.float32)
        b_x -= (tl.sum(tl.sum(b_x, 2), 0) / D)[None, :, None]
        b_rstd = tl.rsqrt(tl.sum(tl.sum(b_x * b_x, 2), 0) / D + EPS)
        b_x = b_x * b_rstd[None, :, None] * tl.load(p_params + table + o_s + o_k)
        b_x += tl.load(p_params + table + D + o_s + o_k)
    return b_x


@triton.jit
def _emit(
    b_acc, b_res, p_work, p_weights, p_params, f, o_r, m_r, tile: tl.constexpr, OP: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """[KS, BM, BN] of column tile `tile`: the sum over KS, scale, bias, ReLU, residual, store."""
    cols, bias, scale, out, out_stride = (
        f[4] - tile * BN, f[5], f[6], f[7], f[8]
    )  # fmt: skip
    o_n = tl.arange(0, BN)
    m_n = o_n < cols
    b_bias = tl.load(p_params + bias + tile * BN + o_n, mask=m_n, other=0)
    b_out = tl.sum(b_acc, 0)
    if p_weights.dtype.element_ty == tl.int8:
        b_out *= tl.load(p_params + scale + tile * BN + o_n, mask=m_n, other=0)[None, :]
    b_out += b_bias[None, :]
    if OP == NORM:
        b_out = tl.where(f[13] & RELU != 0, tl.maximum(b_out, 0), b_out)
    if OP == PLAIN:
        b_out += b_res[tile].to(tl.float32)
    p_out = p_work + out + tile * BN + o_r[:, None] * out_stride + o_n[None, :]
    tl.store(p_out, b_out.to(p_work.dtype.element_ty), mask=m_r[:, None] & m_n[None, :])


@triton.jit
def _residual(p_work, f, o_r, m_r, tile: tl.constexpr, outs, BN: tl.constexpr):
    o_n = tl.arange(0, BN)
    residual, cols = f[14], f[4] - tile * BN
    mask = m_r[:, None] & (o_n < cols)[None, :] & (residual >= 0) & (tile < outs)
    p_res = p_work + residual + tile * BN + o_r[:, None] * f[8] + o_n[None, :]
    return tl.load(p_res, mask=mask, other=0, cache_modifier=".cg")


@triton.jit
def _project(
    p_x, p_work, p_weights, p_params, p_present, f, tile, n_rows, b_w,
    OP: tl.constexpr, OPS: tl.constexpr, NW: tl.constexpr, D: tl.constexpr, M: tl.constexpr, BN: tl.constexpr,
    KS: tl.constexpr,
    PRECISION: tl.constexpr, EPS: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    KC: tl.constexpr = D // KS
    units, outs, rows, side = f[2], f[3], f[9], f[16]
    tiles = units * outs
    o_r = tile * BM + tl.arange(0, BM)
    m_r = o_r < rows
    # one trip: everything this item reads of earlier phases
    b_res = ()
    if OP == PLAIN:
        for j in tl.static_range(NW):
            b_res += (_residual(p_work, f, o_r, m_r, j, outs, BN),)
    b_x0 = _input(p_x, p_params, p_present, f, o_r, m_r, 0, units, n_rows, OP, OPS, D, M, KS, EPS)
    b_x1, b_x2, b_x3 = b_x0, b_x0, b_x0
    if OP != NORM and p_work.dtype.element_ty != tl.float32:  # noqa: SIM102
        if units > 1:
            b_x1 = _input(p_x, p_params, p_present, f, o_r, m_r, 1, units, n_rows, OP, OPS, D, M, KS, EPS)
    if OP == INPUT and M > 2 and p_work.dtype.element_ty != tl.float32:  # others have two parts at most
        b_x2 = _input(p_x, p_params, p_present, f, o_r, m_r, 2, units, n_rows, OP, OPS, D, M, KS, EPS)
    if OP == INPUT and M > 3 and p_work.dtype.element_ty != tl.float32:
        b_x3 = _input(p_x, p_params, p_present, f, o_r, m_r, 3, units, n_rows, OP, OPS, D, M, KS, EPS)
    if OP == INPUT and M > 2:  # noqa: SIM102
        if units == 1:
            b_x2, b_x3 = b_x0, b_x0
    b_acc = _dot(b_x0, b_w[0], p_work, PRECISION, COMPILED)
    b_x = (b_x0, b_x1, b_x2, b_x3)
    for j in tl.static_range(1, NW):
        if tiles > j:
            if p_work.dtype.element_ty == tl.float32:  # no registers to hold them all: only parts of the input, in turn
                b_xj = _input(p_x, p_params, p_present, f, o_r, m_r, j, units, n_rows, OP, OPS, D, M, KS, EPS)
                b_wj = _weights(p_weights, _by16(f[1]), units, j, tiles, f[4], D, BN, KS)
            else:
                b_xj, b_wj = b_x[j], b_w[j]
            b_next = _dot(b_xj, b_wj, p_work, PRECISION, COMPILED)
            if units > 1:
                b_acc += b_next
            else:
                _emit(b_next, b_res, p_work, p_weights, p_params, f, o_r, m_r, j, OP, BN)
    _emit(b_acc, b_res, p_work, p_weights, p_params, f, o_r, m_r, 0, OP, BN)
    if OP != PLAIN:  # noqa: SIM102 - decided at compile time, the other at run time
        if side >= 0:  # the input as it was used, for a later phase to read as keys or residual
            o_s, o_k = tl.arange(0, KS)[:, None, None] * KC, tl.arange(0, KC)[None, None, :]
            p_side = p_work + _by16(side) + o_r[None, :, None] * D + o_s + o_k
            tl.store(p_side, b_x0.to(p_work.dtype.element_ty), mask=m_r[None, :, None])


@triton.jit
def _layer(
    p_work, p_weights, p_params, f, tile, b_w,
    OUTS: tl.constexpr, D: tl.constexpr, BN: tl.constexpr, KS: tl.constexpr, SP: tl.constexpr, PRECISION: tl.constexpr,
    EPS: tl.constexpr,
    COMPILED: tl.constexpr,
):  # fmt: skip
    KC: tl.constexpr = D // KS
    cols, bias, scale, out = f[4], f[5], f[6], f[7]
    q, k, v, q_stride, k_stride = (
        f[10], f[11], f[12], f[13], f[14]
    )  # fmt: skip
    norm, side, col, before, wsum = (
        f[15], f[16], f[17], f[18], f[19]
    )  # fmt: skip
    length, row_step, batch_step = f[20], f[21], f[22]
    q, k, v = _by16(q), _by16(k), _by16(v)
    q_stride, k_stride, before = _by16(q_stride), _by16(k_stride), _by16(before)
    tiles = tl.cdiv(length, BM)
    base = (tile // tiles) * batch_step
    o_i = (tile % tiles) * BM + tl.arange(0, BM)
    o_j = tl.arange(0, SP)
    m_i, m_j = o_i < length, o_j < length
    o_q, o_k = base + o_i * row_step, base + o_j * row_step  # rows of the buffers
    o_s, o_c = tl.arange(0, KS)[:, None, None] * KC, tl.arange(0, KC)

    # one trip: everything this item reads of earlier phases, and its small constants
    p_q = p_work + q + o_q[None, :, None] * q_stride + o_s + o_c[None, None, :]
    b_q = tl.load(p_q, mask=m_i[None, :, None], other=0, cache_modifier=".cg")  # [KS, BM, KC]
    p_k = p_work + k + o_k[None, None, :] * k_stride + o_s + o_c[None, :, None]
    b_k = tl.load(p_k, mask=m_j[None, None, :], other=0, cache_modifier=".cg")  # [KS, KC, SP]
    p_v = p_work + v + o_k[None, :, None] * q_stride + o_s + o_c[None, None, :]
    b_v = tl.load(p_v, mask=m_j[None, :, None], other=0, cache_modifier=".cg")  # [KS, SP, KC]
    p_r = p_work + k + o_q[None, :, None] * k_stride + o_s + o_c[None, None, :]
    b_r = tl.load(p_r, mask=m_i[None, :, None], other=0, cache_modifier=".cg").to(tl.float32)  # [KS, BM, KC]
    b_before = tl.load(p_params + before + o_s + o_c[None, None, :])

    b_scores = tl.sum(_dot(b_q, b_k, p_work, PRECISION, COMPILED), 0)  # [BM, SP]
    b_scores = tl.where(m_j[None, :], b_scores, float("-inf"))
    b_p = tl.exp(b_scores - tl.max(b_scores, 1)[:, None])
    b_inverse = 1.0 / tl.sum(b_p, 1)  # [BM]
    b_p = b_p.to(p_work.dtype.element_ty)
    b_pk = tl.broadcast_to(b_p[None, :, :], [KS, BM, SP])
    b_mid = _dot(b_pk, b_v, p_work, PRECISION, COMPILED) * b_inverse[None, :, None] + b_before + b_r
    b_x = b_mid.to(p_work.dtype.element_ty)
    if p_work.dtype.element_ty == tl.float32:
        b_mean = tl.sum(tl.sum(b_mid, 2), 0) / D  # [BM]
        b_mid = b_mid - b_mean[None, :, None]
        b_rstd = tl.rsqrt(tl.sum(tl.sum(b_mid * b_mid, 2), 0) / D + EPS)
    else:  # one pass: what it loses is far below 16 bits
        b_sum, b_squares = tl.reduce(tl.reduce((b_mid, b_mid * b_mid), 2, _add2), 0, _add2)
        b_mean = b_sum / D
        b_rstd = tl.rsqrt(tl.maximum(b_squares / D - b_mean * b_mean, 0) + EPS)
    for j in tl.static_range(OUTS):
        o_n = j * BN + tl.arange(0, BN)
        m_n = o_n < cols
        m_out = m_i[:, None] & m_n[None, :]
        # the LayerNorm's own columns too, for the residual behind the feed-forward layers
        p_v = p_work + v + o_k[:, None] * q_stride + col + o_n[None, :]
        b_v = tl.load(p_v, mask=m_j[:, None] & m_n[None, :], other=0, cache_modifier=".cg")  # [SP, BN]
        p_r = p_work + k + o_q[:, None] * k_stride + col + o_n[None, :]
        b_r = tl.load(p_r, mask=m_out, other=0, cache_modifier=".cg").to(tl.float32)
        b_bias = tl.load(p_params + bias + o_n, mask=m_n, other=0)
        b_sum = tl.load(p_params + wsum + o_n, mask=m_n, other=0)
        b_gain = tl.load(p_params + norm + col + o_n, mask=m_n, other=0)
        b_shift = tl.load(p_params + norm + D + col + o_n, mask=m_n, other=0)
        b_before = tl.load(p_params + before + col + o_n, mask=m_n, other=0)
        b_out = tl.sum(_dot(b_x, b_w[j], p_work, PRECISION, COMPILED), 0)  # the norm is applied behind the matrix
        if p_weights.dtype.element_ty == tl.int8:
            b_out *= tl.load(p_params + scale + o_n, mask=m_n, other=0)[None, :]
        b_out = (b_out - b_mean[:, None] * b_sum[None, :]) * b_rstd[:, None] + b_bias[None, :]
        o_out = o_q[:, None] * D + o_n[None, :]
        tl.store(p_work + out + o_out, tl.maximum(b_out, 0).to(p_work.dtype.element_ty), mask=m_out)
        b_pc = b_p
        if not COMPILED:
            b_pc, b_v = b_pc.to(tl.float32), b_v.to(tl.float32)
        b_c = tl.dot(b_pc, b_v, input_precision=PRECISION) * b_inverse[:, None] + b_before[None, :] + b_r
        b_c = (b_c - b_mean[:, None]) * b_rstd[:, None] * b_gain[None, :] + b_shift[None, :]
        tl.store(p_work + side + col + o_out, b_c.to(p_work.dtype.element_ty), mask=m_out)


@triton.jit
def _cross(
    p_work, p_weights, p_params, f, r, n_rows, b_w,
    D: tl.constexpr, M: tl.constexpr, BN: tl.constexpr, KS: tl.constexpr, PRECISION: tl.constexpr, EPS: tl.constexpr,
    OUTS: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    KC: tl.constexpr = D // KS
    cols, bias, scale, out, out_stride, rows = (
        f[4], f[5], f[6], f[7], f[8], f[9]
    )  # fmt: skip
    q, query, steps, results, enc = (
        f[10], f[11], f[12], f[13], f[14]
    )  # fmt: skip
    qsum, qbias, norms = f[15], f[16], f[17]
    q, enc, qsum = _by16(q), _by16(enc), _by16(qsum)
    qbias, norms = _by16(qbias), _by16(norms)
    o_d = tl.arange(0, D)
    o_j = tl.arange(0, 16)
    sample = r // results
    p_q = p_work + q + r * D + o_d
    b_q = tl.load(p_q, cache_modifier=".cg").to(tl.float32)
    p_e = p_work + enc + (query * n_rows + sample * steps + steps - results + r % results) * D + o_d
    b_e = tl.load(p_e, cache_modifier=".cg").to(tl.float32)
    b_qsum, b_qbias = tl.load(p_params + qsum + o_d), tl.load(p_params + qbias + o_d)
    total_e, squares_e = tl.reduce((b_e, b_e * b_e), 0, _add2)
    mean_e = total_e / D
    b_q = (b_q - mean_e * b_qsum) * tl.rsqrt(tl.maximum(squares_e / D - mean_e * mean_e, 0) + EPS) + b_qbias
    o_i = tl.arange(0, BM)
    b_x = tl.zeros([BM, D], dtype=tl.float32)
    for i in tl.static_range(M):
        key = f[18 + i] % 256
        b_gain, b_shift = (
            tl.load(p_params + norms + key * 2 * D + o_d),
            tl.load(p_params + norms + key * 2 * D + D + o_d),
        )
        b_g = b_q * b_gain
        total_g = tl.sum(b_g, 0)
        top, total = float("-inf"), 0.0
        b_t = tl.zeros([D], dtype=tl.float32)
        for j in range(0, steps, 16):
            m_j = j + o_j < steps
            p_k = p_work + enc + (key * n_rows + sample * steps + j + o_j[:, None]) * D + o_d[None, :]
            b_k = tl.load(p_k, mask=m_j[:, None], other=0, cache_modifier=".cg").to(tl.float32)  # [16, D]
            b_sum, b_squares, b_dot = tl.reduce((b_k, b_k * b_k, b_k * b_g[None, :]), 1, _add3)
            b_mean = b_sum / D
            b_rstd = tl.rsqrt(tl.maximum(b_squares / D - b_mean * b_mean, 0) + EPS)
            b_s = tl.where(m_j, (b_dot - b_mean * total_g) * b_rstd, float("-inf"))
            higher = tl.maximum(top, tl.max(b_s, 0))
            b_p = tl.exp(b_s - higher)
            shrink = tl.exp(top - higher)
            total = total * shrink + tl.sum(b_p, 0)
            b_r = b_p * b_rstd
            b_t = b_t * shrink + tl.sum(b_r[:, None] * (b_k - b_mean[:, None]), 0)
            top = higher
        b_t = b_t / total * b_gain + b_shift
        b_x = tl.where(o_i[:, None] == i, b_t[None, :], b_x)
    b_x = tl.permute(tl.reshape(b_x.to(p_work.dtype.element_ty), [BM, KS, KC]), (1, 0, 2))
    block = tl.zeros([BM], dtype=tl.int32)
    for i in tl.static_range(M):
        block = tl.where(o_i == i, f[18 + i] // 256, block)
    o_row = block * rows + r
    o_n = tl.arange(0, BN)
    for j in tl.static_range(OUTS):
        m_n = o_n < cols - j * BN
        b_bias = tl.load(p_params + bias + j * BN + o_n, mask=m_n, other=0)
        b_out = tl.sum(_dot(b_x, b_w[j], p_work, PRECISION, COMPILED), 0)
        if p_weights.dtype.element_ty == tl.int8:
            b_out *= tl.load(p_params + scale + j * BN + o_n, mask=m_n, other=0)[None, :]
        b_out += b_bias[None, :]
        p_out = p_work + out + j * BN + o_row[:, None] * out_stride + o_n[None, :]
        tl.store(p_out, b_out.to(p_work.dtype.element_ty), mask=(o_i < M)[:, None] & m_n[None, :])


@triton.jit
def _attend(
    p_work, p_params, f, tile,
    D: tl.constexpr, HD: tl.constexpr, BC: tl.constexpr, SP: tl.constexpr, KS: tl.constexpr, KA: tl.constexpr,
    PRECISION: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    cols, bias, out = f[4], f[5], f[7]
    q, k, v, residual = f[10], f[11], f[12], f[13]
    q_len, k_len, row_step, batch_step = f[14], f[15], f[16], f[17]
    width, out_step = f[18], f[19]
    tiles = tl.cdiv(q_len, BM)
    base = (tile // tiles) * batch_step
    o_i = (tile % tiles) * BM + tl.arange(0, BM)
    o_j, o_c = tl.arange(0, SP), tl.arange(0, BC)
    m_i, m_j, m_c = o_i < q_len, o_j < k_len, o_c < cols
    o_q, o_k = base + o_i * row_step, base + o_j * row_step  # rows of the buffers
    o_s, o_a = tl.arange(0, KS)[:, None, None] * KA, tl.arange(0, KA)
    q, k, v, width = _by16(q), _by16(k), _by16(v), _by16(width)

    p_v = p_work + v + o_k[:, None] * width + o_c[None, :]
    b_v = tl.load(p_v, mask=m_j[:, None] & m_c[None, :], other=0, cache_modifier=".cg")  # [SP, BC]
    m_out = m_i[:, None] & m_c[None, :]
    o_out = ((tile // tiles) * out_step + o_i * row_step)[:, None] * width + o_c[None, :]
    p_res = p_work + residual + o_out
    b_res = tl.load(p_res, mask=m_out & (residual >= 0), other=0, cache_modifier=".cg").to(tl.float32)
    b_scores = tl.zeros([BM, SP], dtype=tl.float32)
    for c in range(0, HD, KS * KA):
        p_q = p_work + q + o_q[None, :, None] * D + c + o_s + o_a[None, None, :]
        p_k = p_work + k + o_k[None, None, :] * D + c + o_s + o_a[None, :, None]
        b_q = tl.load(p_q, mask=m_i[None, :, None], other=0, cache_modifier=".cg")  # [KS, BM, KA]
        b_k = tl.load(p_k, mask=m_j[None, None, :], other=0, cache_modifier=".cg")  # [KS, KA, SP]
        b_scores += tl.sum(_dot(b_q, b_k, p_work, PRECISION, COMPILED), 0)
    b_scores = tl.where(m_j[None, :], b_scores, float("-inf"))
    b_p = tl.exp(b_scores - tl.max(b_scores, 1)[:, None])
    b_total = tl.sum(b_p, 1)  # [BM]

    b_p = b_p.to(p_work.dtype.element_ty)
    if not COMPILED:
        b_p, b_v = b_p.to(tl.float32), b_v.to(tl.float32)
    b_out = tl.dot(b_p, b_v, input_precision=PRECISION) / b_total[:, None]
    b_out += tl.load(p_params + bias + o_c, mask=m_c & (bias >= 0), other=0)[None, :] + b_res
    tl.store(p_work + out + o_out, b_out.to(p_work.dtype.element_ty), mask=m_out)


@triton.jit
def _share(p_params, p_present, p_attention, owner, r, span, b_p, o_l, m_l, M: tl.constexpr, MP: tl.constexpr):
    """Store each modality's part of the weights b_p [LP] over the blocks; the joint's is split over those present."""
    o_m = tl.arange(0, MP)
    m_m = o_m < M
    b_here = tl.load(p_present + (r * span + span - 1) * M + o_m, mask=m_m, other=0).to(tl.float32)
    b_here = tl.where(b_here > 0.5, 1.0, 0.0)
    b_owner = tl.load(p_params + owner + o_l, mask=m_l, other=-1).to(tl.int32)  # key source of each block
    b_joint = tl.sum(tl.where(b_owner == M, b_p, 0.0), 0)
    b_share = tl.sum(tl.where(b_owner[:, None] == o_m[None, :], b_p[:, None], 0.0), 0)  # [MP]
    b_share = b_here * (b_share + b_joint / tl.maximum(tl.sum(b_here, 0), 1.0))
    b_share = b_share / tl.maximum(tl.sum(b_share, 0), 1e-12)
    tl.store(p_attention + r * M + o_m, b_share, mask=m_m)


@triton.jit
def _last(
    p_work, p_params, p_present, p_logits, p_attention, f, r,
    D: tl.constexpr, M: tl.constexpr, MP: tl.constexpr, LP: tl.constexpr, HP: tl.constexpr, NO: tl.constexpr,
    EPS: tl.constexpr,
):  # fmt: skip
    bias, rows, q, k, v = f[5], f[9], f[10], f[11], f[12]
    qsum, qbias, gain, vsum, hidden = (
        f[13], f[14], f[15], f[16], f[17]
    )  # fmt: skip
    logits, readout, readout_bias, owner, span, blocks = (
        f[18], f[19], f[20], f[21], f[22], f[23]
    )  # fmt: skip
    q, k, v, hidden = _by16(q), _by16(k), _by16(v), _by16(hidden)
    qsum, qbias, gain = _by16(qsum), _by16(qbias), _by16(gain)
    vsum, bias, readout = _by16(vsum), _by16(bias), _by16(readout)
    o_l, o_d, o_h, o_o = tl.arange(0, LP), tl.arange(0, D), tl.arange(0, HP), tl.arange(0, NO)
    m_l, m_h, m_o = o_l < blocks, o_h < hidden, o_o < logits
    p_k = p_work + k + (o_l[:, None] * rows + r) * D + o_d[None, :]
    b_k = tl.load(p_k, mask=m_l[:, None], other=0, cache_modifier=".cg").to(tl.float32)  # [LP, D]
    b_q = tl.load(p_work + q + r * D + o_d, cache_modifier=".cg").to(tl.float32)
    p_v = p_work + v + (o_l[:, None] * rows + r) * hidden + o_h[None, :]
    b_v = tl.load(p_v, mask=m_l[:, None] & m_h[None, :], other=0, cache_modifier=".cg").to(tl.float32)  # [LP, HP]
    b_qsum, b_qbias = tl.load(p_params + qsum + o_d), tl.load(p_params + qbias + o_d)
    b_gain = tl.load(p_params + gain + o_d)
    b_vsum = tl.load(p_params + vsum + o_h, mask=m_h, other=0)
    b_bias = tl.load(p_params + bias + o_h, mask=m_h, other=0)
    p_r = p_params + readout + o_o[:, None] * hidden + o_h[None, :]
    b_read = tl.load(p_r, mask=m_o[:, None] & m_h[None, :], other=0)
    b_last = tl.load(p_params + readout_bias + o_o, mask=m_o, other=0)

    b_mean, b_rstd = _moments(b_k, D, EPS)  # [LP]
    mean = tl.sum(tl.where(o_l == blocks - 1, b_mean, 0), 0)
    rstd = tl.sum(tl.where(o_l == blocks - 1, b_rstd, 0), 0)
    b_q = ((b_q - mean * b_qsum) * rstd + b_qbias) * b_gain
    b_sum, b_dot = tl.reduce((tl.broadcast_to(b_q[None, :], [LP, D]), b_k * b_q[None, :]), 1, _add2)
    b_scores = tl.where(m_l, (b_dot - b_mean * b_sum) * b_rstd, float("-inf"))
    b_p = tl.exp(b_scores - tl.max(b_scores, 0))
    b_p = b_p / tl.sum(b_p, 0)
    b_v = (b_v - b_mean[:, None] * b_vsum[None, :]) * b_rstd[:, None]
    b_h = tl.maximum(tl.sum(b_p[:, None] * b_v, 0) + b_bias, 0)
    tl.store(p_logits + r * logits + o_o, tl.sum(b_read * b_h[None, :], 1) + b_last, mask=m_o)
    _share(p_params, p_present, p_attention, owner, r, span, b_p, o_l, m_l, M, MP)


@triton.jit
def _head(
    p_work, p_params, p_present, p_logits, p_attention, f, r,
    D: tl.constexpr, HEADS: tl.constexpr, M: tl.constexpr, MP: tl.constexpr, LP: tl.constexpr, HP: tl.constexpr,
    NO: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    rows, q, k, v, norm = f[9], f[10], f[11], f[12], f[13]
    blocks, terms, hidden, logits = f[14], f[15], f[16], f[17]
    bias, readout, readout_bias, owner = f[18], f[19], f[20], f[21]
    span = f[22]  # steps that a result stands for: it is their last
    q, k, v = _by16(q), _by16(k), _by16(v)
    HD: tl.constexpr = D // HEADS
    o_l = tl.arange(0, LP)
    m_l = o_l < blocks
    b_w = tl.where(o_l < terms, 1.0, 0.0)  # [LP]
    if q >= 0:
        o_d = tl.arange(0, HEADS)[None, :, None] * HD + tl.arange(0, HD)[None, None, :]
        p_k = p_work + k + (o_l[:, None, None] * rows + r) * D + o_d
        b_k = tl.load(p_k, mask=m_l[:, None, None], other=0, cache_modifier=".cg").to(tl.float32)  # [LP, HEADS, HD]
        if norm >= 0:
            b_k -= (tl.sum(tl.sum(b_k, 2), 1) / D)[:, None, None]
            b_var = tl.sum(tl.sum(b_k * b_k, 2), 1) / D
            b_k *= tl.rsqrt(b_var + EPS)[:, None, None]
            b_k = b_k * tl.load(p_params + norm + o_d) + tl.load(p_params + norm + D + o_d)
        b_q = tl.load(p_work + q + r * D + o_d, cache_modifier=".cg").to(tl.float32)
        b_scores = tl.where(m_l[:, None], tl.sum(b_q * b_k, 2), float("-inf"))  # [LP, HEADS]
        b_p = tl.exp(b_scores - tl.max(b_scores, 0)[None, :])
        b_p = tl.sum(b_p / tl.sum(b_p, 0)[None, :], 1) / HEADS  # [LP]
        if terms == blocks:  # values are still to be summed; otherwise they already are
            b_w = b_p
        _share(p_params, p_present, p_attention, owner, r, span, b_p, o_l, m_l, M, MP)
    else:
        o_m = tl.arange(0, MP)
        tl.store(p_attention + r * M + o_m, tl.zeros([MP], dtype=tl.float32), mask=o_m < M)

    o_h, o_o = tl.arange(0, HP), tl.arange(0, NO)
    m_h = o_h < hidden
    p_v = p_work + v + (o_l[:, None] * rows + r) * hidden + o_h[None, :]
    b_v = tl.load(p_v, mask=(o_l < terms)[:, None] & m_h[None, :], other=0, cache_modifier=".cg")  # [LP, HP]
    b_h = tl.sum(b_w[:, None] * b_v.to(tl.float32), 0) + tl.load(p_params + bias + o_h, mask=m_h, other=0)
    b_h = tl.maximum(b_h, 0)
    m_o = o_o < logits
    p_r = p_params + readout + o_o[:, None] * hidden + o_h[None, :]
    b_out = tl.sum(tl.load(p_r, mask=m_o[:, None] & m_h[None, :], other=0) * b_h[None, :], 1)
    b_out += tl.load(p_params + readout_bias + o_o, mask=m_o, other=0)
    tl.store(p_logits + r * logits + o_o, b_out, mask=m_o)


@triton.jit
def _arrive(p_counter, COMPILED: tl.constexpr):
    """Raise a counter by one, when every thread of this program has stored what it has to."""
    tl.debug_barrier()
    if COMPILED:
        tl.inline_asm_elementwise(
            """{
            .reg .pred first; .reg .b32 thread;
            mov.u32 thread, %tid.x; setp.eq.u32 first, thread, 0;
            @first red.release.gpu.global.add.u32 [$1], 1;
            mov.u32 $0, 0; }""",
            "=r,l", [p_counter], dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip
    else:
        tl.atomic_add(p_counter, 1, sem="release", scope="gpu")


@triton.jit
def _wait(p_counter, target, COMPILED: tl.constexpr):
    """Until the counter has reached `target` (it wraps); what its programs stored is visible then. One thread polls.

    After POLLS it traps: a launch whose programs cannot all be resident would otherwise never end.
    """
    if COMPILED:
        tl.inline_asm_elementwise(
            """{
            .reg .pred more; .reg .b32 value, left;
            mov.u32 value, %tid.x; setp.ne.u32 more, value, 0;
            @more bra DONE;
            mov.u32 left, $3;
            POLL:
            ld.acquire.gpu.global.u32 value, [$1];
            sub.s32 value, value, $2;
            setp.ge.s32 more, value, 0;
            @more bra DONE;
            sub.u32 left, left, 1;
            setp.ne.u32 more, left, 0;
            @more bra POLL;
            trap;
            DONE:
            mov.u32 $0, 0; }""",
            "=r,l,r,r", [p_counter, target, POLLS], dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip
    else:
        while tl.atomic_add(p_counter, 0, sem="acquire", scope="gpu") - target < 0:
            pass
    tl.debug_barrier()


@triton.jit
def _row(p_plan, i):
    """A row of the plan: 24 values by operation, its tile, and what to wait for and to raise."""
    f = ()
    for j in tl.static_range(28):
        f += (tl.load(p_plan + i * ROW + j),)
    return f


@triton.jit(do_not_specialize=["n_rows", "launch"])
def fusion_kernel(
    p_features, p_work, p_weights, p_params, p_present, p_logits, p_attention, p_plan, p_index, p_barrier,
    n_rows, launch,
    D: tl.constexpr, M: tl.constexpr, MP: tl.constexpr, HEADS: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr,
    KS: tl.constexpr, SP: tl.constexpr, KSA: tl.constexpr, KA: tl.constexpr, LP: tl.constexpr, HP: tl.constexpr,
    NO: tl.constexpr, OPS: tl.constexpr, NW: tl.constexpr, LO: tl.constexpr, CO: tl.constexpr, PRECISION: tl.constexpr,
    EPS: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    """One launch of a plan; see the module's docstring.

    p_features (M, B, S, D) and p_work, all intermediates, in the activation dtype; p_weights: all matrices, in blocks
    of 16 outputs by D inputs; p_params: float32 biases, norms, scales; p_present (B*S, M), p_logits (R, outputs),
    p_attention (R, M): float32, R = B*S, or B where the schedule gives last steps only; p_plan int32 (rows, ROW);
    p_index int32 (launches, programs, 4): first row, rows, this launch's place in p_barrier; p_barrier int32, zero
    before the first launch: launches so far, programs that have read that, and a counter for each phase; n_rows = B*S;
    OPS: bit `1 << op` of each operation in the plan. A launch has as many programs as p_index.
    """
    i_p = tl.program_id(0)
    p_i = p_index + (launch * tl.num_programs(0) + i_p) * 4
    start, count, base = tl.load(p_i), tl.load(p_i + 1), tl.load(p_i + 2)
    # base < 0: nobody waits in this launch
    epoch = 1 + tl.load(p_barrier + tl.maximum(base, 0), cache_modifier=".cg")
    if base >= 0:  # the epoch moves on only when every program has read it
        _arrive(p_barrier + base + 32, COMPILED)
    row = _row(p_plan, start)
    for i in range(count):
        f = row
        op, units, outs, cols, tile = f[0], f[2], f[3], f[4], f[24]
        w = _by16(f[1])
        b_w = (_weights(p_weights, w, units, 0, units * outs, cols, D, BN, KS),)
        if p_work.dtype.element_ty != tl.float32:
            for j in tl.static_range(1, NW):
                b_w += (_weights(p_weights, w, units, j, units * outs, cols, D, BN, KS),)
        if f[25] >= 0:
            _wait(p_barrier + f[25], f[26] * epoch, COMPILED)
        row = _row(p_plan, start + tl.minimum(i + 1, count - 1))
        for kind in tl.static_range(3):  # INPUT, NORM, PLAIN
            if OPS & (1 << kind):  # noqa: SIM102 - decided at compile time, the other at run time
                if op == kind:
                    _project(
                        p_features if kind == INPUT else p_work, p_work, p_weights, p_params, p_present, f, tile,
                        n_rows, b_w, kind, OPS, NW, D, M, BN, KS, PRECISION, EPS, COMPILED,
                    )  # fmt: skip
        if OPS & 8:  # noqa: SIM102
            if op == ATTEND:
                _attend(p_work, p_params, f, tile, D, D // HEADS, BC, SP, KSA, KA, PRECISION, COMPILED)
        if OPS & 16:  # noqa: SIM102
            if op == HEAD:
                _head(
                    p_work, p_params, p_present, p_logits, p_attention, f, tile, D, HEADS, M, MP, LP, HP, NO, EPS,
                )  # fmt: skip
        if OPS & 32:  # noqa: SIM102
            if op == LAYER:
                _layer(
                    p_work, p_weights, p_params, f, tile, b_w,
                    LO, D, BN, KS, SP, PRECISION, EPS, COMPILED,
                )  # fmt: skip
        if OPS & 64:  # noqa: SIM102
            if op == CROSS:
                _cross(
                    p_work, p_weights, p_params, f, tile, n_rows, b_w,
                    D, M, BN, KS, PRECISION, EPS, CO, COMPILED,
                )  # fmt: skip
        if OPS & 128:  # noqa: SIM102
            if op == LAST:
                _last(p_work, p_params, p_present, p_logits, p_attention, f, tile, D, M, MP, LP, HP, NO, EPS)
        if f[27] >= 0:
            _arrive(p_barrier + f[27], COMPILED)
    if base >= 0:  # noqa: SIM102
        if tl.load(p_i + 3) != 0:  # the launch's keeper
            _wait(p_barrier + base + 32, tl.num_programs(0) * epoch, COMPILED)
            tl.store(p_barrier + base, epoch)


PARAMETERS: tuple[str, ...] = (
    "p_features", "p_work", "p_weights", "p_params", "p_present", "p_logits", "p_attention", "p_plan", "p_index",
    "p_barrier", "n_rows", "launch",
)  # fmt: skip

# ptxas would otherwise spill a few registers where that brings it to 128, for a second block per multiprocessor
# that a launch of one program per multiprocessor does not have
MAX_REGISTERS = 255


def interpreted() -> bool:
    """Whether Triton runs its kernels in the CPU interpreter in this process (TRITON_INTERPRET=1 at import)."""
    return not isinstance(fusion_kernel, triton.runtime.jit.JITFunction)
