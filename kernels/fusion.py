"""The whole joint fusion as Triton device code: three operations, one kernel, a table of work.

The kernel walks phases. A phase is a list of independent items, each an entry of the table (which weights, which
buffers) and a tile of rows; program `p` of `G` takes items `p, p + G, ...`. Between two phases of one launch
stands a grid-wide barrier, so such a launch must be cooperative (every program resident at once); a launch of a
single phase has no barrier. `schedule.py` writes the table: all phases in one launch is the persistent kernel,
one launch per stage (encoders, cross-attentions, final) the staged one, one per phase needs no cooperation.

- PROJECT: `out = relu?(norm?(x) @ w.T * scale + bias) + residual?` for 16 rows and BN columns. Each weight byte
  is read by one program per 16 rows. The input dimension is split over the warps (a batched dot), then summed in
  a fixed order.
- ATTEND: `softmax(q @ k.T) @ v + bias + residual?` for 16 queries (or the last one alone), one head and BC columns.
- HEAD: the last query's softmax over the blocks, the weighted sum of the projected values, ReLU, the output
  neurons, and the attention of each modality; one row at a time.

No sum depends on B or on the number of programs and there are no float atomics: a sample's result is the same
bit for bit in any batch and on every run. Arithmetic: operands in the activation dtype, sums, softmax and
LayerNorm in float32; `ieee` dots for float32; INT8 weights are widened to the activation dtype and scaled per
output column after the dot.

References: JMT, arXiv 2403.10488v2, section 3; `reference.py` holds the same stages in plain PyTorch.
"""

# mypy: disable-error-code="no-untyped-def"
# (device functions have no Python types: Triton gives them theirs)
from __future__ import annotations

import triton
import triton.language as tl

INPUT = tl.constexpr(0)  # PROJECT of features: a row whose modality is absent is replaced by the learnt token
NORM = tl.constexpr(1)  # PROJECT of LayerNorm(x)
PLAIN = tl.constexpr(2)  # PROJECT of x as it stands
ATTEND = tl.constexpr(3)
HEAD = tl.constexpr(4)

FIELDS = tl.constexpr(16)  # int32 per table entry: 64 bytes
BM = tl.constexpr(16)  # rows per tile: the smallest a tensor-core instruction takes
RELU = tl.constexpr(1)  # flags of a PROJECT entry
ABS = tl.constexpr(2)


@triton.jit
def _normalise(b_x, p_norm, o_d, D: tl.constexpr, EPS: tl.constexpr):
    """LayerNorm over axes 0 and 2 of b_x [KS, BM, KC]; o_d [KS, 1, KC] are the columns."""
    b_mean = tl.sum(tl.sum(b_x, 2), 0) / D  # [BM]
    b_x = b_x - b_mean[None, :, None]
    b_rstd = tl.rsqrt(tl.sum(tl.sum(b_x * b_x, 2), 0) / D + EPS)
    b_x = b_x * b_rstd[None, :, None] * tl.load(p_norm + o_d) + tl.load(p_norm + D + o_d)
    return b_x, b_mean, b_rstd


@triton.jit
def _project(
    p_x, p_work, p_weights, p_params, p_present, e, tile, n_rows,
    OP: tl.constexpr, D: tl.constexpr, M: tl.constexpr, BN: tl.constexpr, KS: tl.constexpr, PRECISION: tl.constexpr,
    EPS: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    KC: tl.constexpr = D // KS
    rows = tl.load(e + 1)
    if tile * BM < rows:
        x, chunks, w = tl.load(e + 2), tl.load(e + 3), tl.load(e + 4)
        bias, scale, out, out_stride = tl.load(e + 5), tl.load(e + 6), tl.load(e + 7), tl.load(e + 8)
        cols, flags, residual, norm = tl.load(e + 9), tl.load(e + 10), tl.load(e + 11), tl.load(e + 12)
        side, col, modality = tl.load(e + 13), tl.load(e + 14), tl.load(e + 15)
        x, w = tl.multiple_of(x, 16), tl.multiple_of(w, 16)

        o_r = tile * BM + tl.arange(0, BM)
        o_n = tl.arange(0, BN)
        o_s, o_k = tl.arange(0, KS)[:, None, None] * KC, tl.arange(0, KC)
        m_r, m_n = o_r < rows, o_n < cols
        m_out = m_r[:, None] & m_n[None, :]
        b_acc = tl.zeros([BM, BN], dtype=tl.float32)
        b_mean, b_rstd = tl.zeros([BM], dtype=tl.float32), tl.zeros([BM], dtype=tl.float32)
        for c in range(chunks):
            # weights first: they do not wait for the previous phase's stores to become visible
            p_w = p_weights + w + o_n[None, None, :] * (chunks * D) + c * D + o_s + o_k[None, :, None]
            b_w = tl.load(p_w, mask=m_n[None, None, :], other=0)  # [KS, KC, BN]
            o_x = x + (c * n_rows + o_r[None, :, None]) * D + o_s + o_k[None, None, :]
            b_x = tl.load(p_x + o_x, mask=m_r[None, :, None], other=0, cache_modifier=".cg")  # [KS, BM, KC]
            if OP == INPUT:
                b_here = tl.load(p_present + o_r * M + modality + c, mask=m_r, other=1)
                b_token = tl.load(p_params + norm + (modality + c) * D + o_s + o_k[None, None, :])
                b_x = tl.where(b_here[None, :, None] > 0.5, b_x.to(tl.float32), b_token)
                b_x = tl.where(flags & ABS != 0, tl.abs(b_x), b_x)
            if OP == NORM:
                b_x, b_mean, b_rstd = _normalise(b_x.to(tl.float32), p_params + norm, o_s + o_k[None, None, :], D, EPS)
            b_x, b_w = b_x.to(p_work.dtype.element_ty), b_w.to(p_work.dtype.element_ty)
            if not COMPILED:  # the interpreter's dot has no bfloat16; products of 16 bits are exact in float32
                b_x, b_w = b_x.to(tl.float32), b_w.to(tl.float32)
            b_acc += tl.sum(tl.dot(b_x, b_w, input_precision=PRECISION), 0)

        if p_weights.dtype.element_ty == tl.int8:
            b_acc *= tl.load(p_params + scale + o_n, mask=m_n, other=0)[None, :]
        b_acc += tl.load(p_params + bias + o_n, mask=m_n, other=0)[None, :]
        b_acc = tl.where(flags & RELU != 0, tl.maximum(b_acc, 0), b_acc)
        m_res = m_out & (residual >= 0)
        p_res = p_work + residual + o_r[:, None] * out_stride + o_n[None, :]
        b_acc += tl.load(p_res, mask=m_res, other=0, cache_modifier=".cg").to(tl.float32)
        p_out = p_work + out + o_r[:, None] * out_stride + o_n[None, :]
        tl.store(p_out, b_acc.to(p_work.dtype.element_ty), mask=m_out)

        # this tile's columns of the input as it was used, for a later phase to read as keys or residual
        if OP != PLAIN:  # noqa: SIM102 - decided at compile time, the other at run time
            if side >= 0:
                b_c = tl.load(p_x + x + o_r[:, None] * D + col + o_n[None, :], mask=m_out, cache_modifier=".cg")
                b_c = b_c.to(tl.float32)
                if OP == NORM:
                    b_gain = tl.load(p_params + norm + col + o_n, mask=m_n)
                    b_shift = tl.load(p_params + norm + D + col + o_n, mask=m_n)
                    b_c = (b_c - b_mean[:, None]) * b_rstd[:, None] * b_gain[None, :] + b_shift[None, :]
                else:
                    b_here = tl.load(p_present + o_r * M + modality, mask=m_r, other=1)
                    b_token = tl.load(p_params + norm + modality * D + col + o_n, mask=m_n)
                    b_c = tl.where(b_here[:, None] > 0.5, b_c, b_token[None, :])
                p_side = p_work + side + o_r[:, None] * D + col + o_n[None, :]
                tl.store(p_side, b_c.to(p_work.dtype.element_ty), mask=m_out)


@triton.jit
def _attend(
    p_work, p_params, e, tile,
    D: tl.constexpr, HD: tl.constexpr, BC: tl.constexpr, SP: tl.constexpr, KS: tl.constexpr, KA: tl.constexpr,
    PRECISION: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    batches, q, k, v = tl.load(e + 1), tl.load(e + 2), tl.load(e + 3), tl.load(e + 4)
    out, bias, residual = tl.load(e + 5), tl.load(e + 6), tl.load(e + 7)
    q_len, k_len, row_step, batch_step = tl.load(e + 8), tl.load(e + 9), tl.load(e + 10), tl.load(e + 11)
    width, cols, out_step = tl.load(e + 12), tl.load(e + 13), tl.load(e + 14)
    tiles = tl.cdiv(q_len, BM)
    if tile < batches * tiles:
        base = (tile // tiles) * batch_step
        o_i = (tile % tiles) * BM + tl.arange(0, BM)
        o_j, o_c = tl.arange(0, SP), tl.arange(0, BC)
        m_i, m_j, m_c = o_i < q_len, o_j < k_len, o_c < cols
        o_q, o_k = base + o_i * row_step, base + o_j * row_step  # rows of the buffers
        o_s, o_a = tl.arange(0, KS)[:, None, None] * KA, tl.arange(0, KA)
        q, k, v = tl.multiple_of(q, 16), tl.multiple_of(k, 16), tl.multiple_of(v, 16)

        b_scores = tl.zeros([BM, SP], dtype=tl.float32)
        for c in range(0, HD, KS * KA):
            p_q = p_work + q + o_q[None, :, None] * D + c + o_s + o_a[None, None, :]
            p_k = p_work + k + o_k[None, None, :] * D + c + o_s + o_a[None, :, None]
            b_q = tl.load(p_q, mask=m_i[None, :, None], other=0, cache_modifier=".cg")  # [KS, BM, KA]
            b_k = tl.load(p_k, mask=m_j[None, None, :], other=0, cache_modifier=".cg")  # [KS, KA, SP]
            if not COMPILED:
                b_q, b_k = b_q.to(tl.float32), b_k.to(tl.float32)
            b_scores += tl.sum(tl.dot(b_q, b_k, input_precision=PRECISION), 0)
        b_scores = tl.where(m_j[None, :], b_scores, float("-inf"))
        b_p = tl.exp(b_scores - tl.max(b_scores, 1)[:, None])
        b_total = tl.sum(b_p, 1)  # [BM]

        p_v = p_work + v + o_k[:, None] * width + o_c[None, :]
        b_v = tl.load(p_v, mask=m_j[:, None] & m_c[None, :], other=0, cache_modifier=".cg")  # [SP, BC]
        b_p = b_p.to(p_work.dtype.element_ty)
        if not COMPILED:
            b_p, b_v = b_p.to(tl.float32), b_v.to(tl.float32)
        b_out = tl.dot(b_p, b_v, input_precision=PRECISION) / b_total[:, None]
        b_out += tl.load(p_params + bias + o_c, mask=m_c & (bias >= 0), other=0)[None, :]
        m_out = m_i[:, None] & m_c[None, :]
        o_out = ((tile // tiles) * out_step + o_i * row_step)[:, None] * width + o_c[None, :]
        p_res = p_work + residual + o_out
        b_out += tl.load(p_res, mask=m_out & (residual >= 0), other=0, cache_modifier=".cg").to(tl.float32)
        tl.store(p_work + out + o_out, b_out.to(p_work.dtype.element_ty), mask=m_out)


@triton.jit
def _head(
    p_work, p_params, p_present, p_logits, p_attention, e, r,
    D: tl.constexpr, HEADS: tl.constexpr, M: tl.constexpr, MP: tl.constexpr, LP: tl.constexpr, HP: tl.constexpr,
    NO: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    rows, q, k, v, norm = tl.load(e + 1), tl.load(e + 2), tl.load(e + 3), tl.load(e + 4), tl.load(e + 5)
    blocks, terms, hidden, logits = tl.load(e + 6), tl.load(e + 7), tl.load(e + 8), tl.load(e + 9)
    bias, readout, readout_bias, owner = tl.load(e + 10), tl.load(e + 11), tl.load(e + 12), tl.load(e + 13)
    span = tl.load(e + 14)  # steps that a result stands for: it is their last
    q, k, v = tl.multiple_of(q, 16), tl.multiple_of(k, 16), tl.multiple_of(v, 16)
    HD: tl.constexpr = D // HEADS
    o_l = tl.arange(0, LP)
    m_l = o_l < blocks
    b_w = tl.where(o_l < terms, 1.0, 0.0)  # [LP]
    o_m = tl.arange(0, MP)
    m_m = o_m < M
    b_share = tl.zeros([MP], dtype=tl.float32)
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

        b_here = tl.load(p_present + (r * span + span - 1) * M + o_m, mask=m_m, other=0).to(tl.float32)
        b_here = tl.where(b_here > 0.5, 1.0, 0.0)
        b_owner = tl.load(p_params + owner + o_l, mask=m_l, other=-1).to(tl.int32)  # key source of each block
        b_joint = tl.sum(tl.where(b_owner == M, b_p, 0.0), 0)
        b_share = tl.sum(tl.where(b_owner[:, None] == o_m[None, :], b_p[:, None], 0.0), 0)  # [MP]
        b_share = b_here * (b_share + b_joint / tl.maximum(tl.sum(b_here, 0), 1.0))
        b_share = b_share / tl.maximum(tl.sum(b_share, 0), 1e-12)
    tl.store(p_attention + r * M + o_m, b_share, mask=m_m)

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
def _prefetch(p_weights, e, D: tl.constexpr, BN: tl.constexpr):
    """Ask L2 for the weights of the item after this one: the next of the phase, or the first of the next phase."""
    op, chunks, w, cols = tl.load(e), tl.load(e + 3), tl.load(e + 4), tl.load(e + 9)
    LINE: tl.constexpr = 128 * 8 // p_weights.dtype.element_ty.primitive_bitwidth  # elements per cache line
    if op <= PLAIN:
        o_line = tl.arange(0, BN * D // LINE) * LINE
        for c in range(chunks):
            p_w = p_weights + w + tl.minimum(c * BN * D + o_line, cols * chunks * D - 1)
            tl.inline_asm_elementwise(
                "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [p_w], dtype=tl.int32, is_pure=False, pack=1
            )


@triton.jit
def _grid_barrier(p_barrier, COMPILED: tl.constexpr):
    """Wait until every program of a cooperative launch has arrived; their stores are visible afterwards.

    The counter needs no reset: program 0 adds 2^31 - (G - 1), the others 1, so each crossing flips the top bit
    and leaves the rest at zero (the way CUDA's cooperative groups count).
    """
    n_programs = tl.num_programs(0)
    step = tl.where(tl.program_id(0) == 0, (1 - n_programs) ^ -2147483648, 1)
    tl.debug_barrier()  # every thread's stores come before the release below
    before = tl.atomic_add(p_barrier, step, sem="acq_rel", scope="gpu")
    now = before
    while (now ^ before) >= 0:
        if COMPILED:
            now = tl.inline_asm_elementwise(
                "ld.acquire.gpu.global.s32 $0, [$1];", "=r,l", [p_barrier], dtype=tl.int32, is_pure=False, pack=1
            )
        else:
            now = tl.atomic_add(p_barrier, 0, sem="acquire", scope="gpu")
    tl.debug_barrier()


@triton.jit(do_not_specialize=["n_rows", "first", "last"])
def fusion_kernel(
    p_features, p_work, p_weights, p_params, p_present, p_logits, p_attention, p_table, p_phases, p_barrier,
    n_rows, first, last,
    D: tl.constexpr, M: tl.constexpr, MP: tl.constexpr, HEADS: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr,
    KS: tl.constexpr, SP: tl.constexpr, KSA: tl.constexpr, KA: tl.constexpr, LP: tl.constexpr, HP: tl.constexpr,
    NO: tl.constexpr, PRECISION: tl.constexpr, EPS: tl.constexpr, COMPILED: tl.constexpr,
):  # fmt: skip
    """Phases `first` to `last` (exclusive) of the schedule; see the module's docstring.

    p_features (M, B, S, D) and p_work, all intermediates, in the activation dtype; p_weights: all matrices, (out, in)
    rows; p_params: float32 biases, norms, scales; p_present (B*S, M), p_logits (R, outputs), p_attention (R, M):
    float32, R = B*S, or B where the schedule gives last steps only; p_table int32 (entries, FIELDS); p_phases int32
    (phases, 4): first entry, entries, tiles, 0; p_barrier: one int32, zero before the first launch; n_rows = B * S.
    """
    i_p = tl.program_id(0)
    n_programs = tl.num_programs(0)
    for phase in range(first, last):
        begin, tiles = tl.load(p_phases + phase * 4), tl.load(p_phases + phase * 4 + 2)
        n_items = tl.load(p_phases + phase * 4 + 1) * tiles
        for item in range(i_p, n_items, n_programs):
            tile = item % tiles
            e = p_table + (begin + item // tiles) * FIELDS
            op = tl.load(e)
            if COMPILED:
                following = item + n_programs
                if following < n_items:
                    _prefetch(p_weights, p_table + (begin + following // tiles) * FIELDS, D, BN)
            if op == INPUT:
                _project(
                    p_features, p_work, p_weights, p_params, p_present, e, tile, n_rows,
                    INPUT, D, M, BN, KS, PRECISION, EPS, COMPILED,
                )  # fmt: skip
            elif op == NORM:
                _project(
                    p_work, p_work, p_weights, p_params, p_present, e, tile, n_rows,
                    NORM, D, M, BN, KS, PRECISION, EPS, COMPILED,
                )  # fmt: skip
            elif op == PLAIN:
                _project(
                    p_work, p_work, p_weights, p_params, p_present, e, tile, n_rows,
                    PLAIN, D, M, BN, KS, PRECISION, EPS, COMPILED,
                )  # fmt: skip
            elif op == ATTEND:
                _attend(p_work, p_params, e, tile, D, D // HEADS, BC, SP, KSA, KA, PRECISION, COMPILED)
            else:
                _head(
                    p_work, p_params, p_present, p_logits, p_attention, e, tile, D, HEADS, M, MP, LP, HP, NO, EPS,
                )  # fmt: skip
        if phase + 1 < last:
            if COMPILED:
                after = tl.load(p_phases + phase * 4 + 4)
                after_tiles = tl.load(p_phases + phase * 4 + 6)
                if i_p < tl.load(p_phases + phase * 4 + 5) * after_tiles:
                    _prefetch(p_weights, p_table + (after + i_p // after_tiles) * FIELDS, D, BN)
            _grid_barrier(p_barrier, COMPILED)


PARAMETERS: tuple[str, ...] = (
    "p_features", "p_work", "p_weights", "p_params", "p_present", "p_logits", "p_attention", "p_table", "p_phases",
    "p_barrier", "n_rows", "first", "last",
)  # fmt: skip

# ptxas would otherwise spill a few registers where that brings it to 128, for a second block per multiprocessor
# that a launch of one program per multiprocessor does not have
MAX_REGISTERS = 255


def interpreted() -> bool:
    """Whether Triton runs its kernels in the CPU interpreter in this process (TRITON_INTERPRET=1 at import)."""
    return not isinstance(fusion_kernel, triton.runtime.jit.JITFunction)
