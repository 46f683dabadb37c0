"""Training examples as whole batches: clips for a backbone, cached features for a fusion.

A batch is drawn by index and seed, so order, augmentation and masks of an epoch depend only on the seed and the epoch,
and a resumed run continues with the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..clips.cutter import network_input
from ..clips.presence import held, of_newest_person
from ..opencv import cv2
from ..preprocessing.actions import mirrored
from ..tasks import Modality
from .clips import ClipStore
from .data import WindowTable
from .recipes import Augment, Masking
from .sensors import SENSORS, as_sensor, contact

Batch = tuple[dict[str, Any], dict[str, Tensor]]
Draw = tuple[NDArray[np.int64], int]
JPEG_QUALITY = (60, 96)


class EpochSampler(Sampler[Draw]):
    """Batches of indices with a seed each, shuffled by (seed, epoch) and divided among the processes of a DDP run."""

    def __init__(self, count: int, batch: int, seed: int | None, *, shard: bool) -> None:
        self.count, self.batch, self.seed, self.shard = count, batch, seed, shard
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def _world(self) -> tuple[int, int]:
        if self.shard and torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def __len__(self) -> int:
        _, world = self._world()
        return math.ceil(math.ceil(self.count / self.batch) / world)

    def __iter__(self) -> Iterator[Draw]:
        order = np.arange(self.count)
        if self.seed is not None:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        batches = [order[i : i + self.batch] for i in range(0, self.count, self.batch)]
        rank, world = self._world()
        while len(batches) % world:
            batches.append(batches[len(batches) % self.count % len(batches)])  # all processes take as many steps
        for number in range(rank, len(batches), world):
            yield batches[number], hash_seed(self.seed or 0, self.epoch, number)


def hash_seed(*parts: int) -> int:
    """A 63-bit seed out of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(2, np.uint32).astype(np.uint64) @ (1, 1 << 31))


def loader(data: Dataset[Batch], count: int, batch: int, seed: int | None, *, shard: bool = True) -> DataLoader[Batch]:
    return DataLoader(data, batch_size=None, sampler=EpochSampler(count, batch, seed, shard=shard))


# ---- clips for a backbone ------------------------------------------------------------------------------------


@dataclass
class ClipSet(Dataset[Batch]):
    """Clips of one modality with the labels of the moment they end at. labels[o]: (n, 1), NaN where unlabelled."""

    store: ClipStore
    rows: NDArray[np.int64]
    labels: dict[str, NDArray[np.float32]]
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> Batch:
        index, seed = draw
        # sorted for the memory map; the order within a batch is irrelevant
        index = np.sort(index)
        rng = np.random.default_rng(seed) if self.augment else None
        clips = vary(self.store.data[self.rows[index]], self.store.modality, self.augment, rng)
        labels = {o: torch.from_numpy(y[index]) for o, y in self.labels.items()}
        return {"clips": torch.from_numpy(clips)}, labels


def clip_set(windows: WindowTable, store: ClipStore, augment: Augment | None = None) -> ClipSet:
    """Every usable clip that `windows` refer to, with its label."""
    name = store.modality.name
    rows = windows.rows[name]
    labels = {o: np.full(len(store.data), np.nan, np.float32) for o in windows.labels}
    used = np.zeros(len(store.data), bool)
    for step in range(rows.shape[1]):
        at = rows[:, step] >= 0
        used[rows[at, step]] = True
        for o, y in windows.labels.items():
            labels[o][rows[at, step]] = y[at, step]
    used &= store.present & ~np.all([np.isnan(y) for y in labels.values()], axis=0)
    keep = np.flatnonzero(used)
    return ClipSet(store, keep, {o: y[keep, None] for o, y in labels.items()}, augment)


def vary(
    stored: NDArray[Any], m: Modality, augment: Augment | None, rng: np.random.Generator | None
) -> NDArray[np.float32]:
    """(n, *shape) clips as backbone input, each varied by its own draw from `rng`."""
    if augment is None or rng is None or m.precomputed:
        return network_input(stored, m)
    n = len(stored)
    if m.name == "face":
        out = np.array(stored)
        for i in range(n):
            if augment.flip and rng.random() < 0.5:
                out[i] = mirrored(out[i]) if m.measured else out[i, :, :, ::-1]
            if m.measured:  # what follows is done to pictures
                continue
            if augment.crop:
                out[i] = _shift(out[i], *rng.integers(-augment.crop, augment.crop + 1, 2))
            if augment.brightness:
                out[i] = np.clip(out[i] * rng.normal(1, augment.brightness), 0, 255).astype(np.uint8)
            if augment.jitter:
                out[i] = _jitter(out[i], augment.jitter, rng)
            if augment.jpeg and rng.random() < augment.jpeg:
                out[i] = _compressed(out[i], int(rng.integers(*JPEG_QUALITY)))
            if augment.grey_noise:
                noise = rng.integers(-augment.grey_noise, augment.grey_noise + 1, out[i].shape, np.int16)
                out[i] = np.clip(out[i] + noise, 0, 255)
        return network_input(out, m)
    if m.name == "voice":
        gain = rng.normal(0, augment.voice_gain, (n, 1, 1, 1)) if augment.voice_gain else 0.0
        return network_input(stored, m) + np.float32(np.asarray(gain) / (m.std[0] if m.std else 1.0))
    values = np.array(stored, np.float32)
    if augment.eda_shift:
        values = _delay(values, rng.uniform(-augment.eda_shift, augment.eda_shift, n))
    centre = values.mean(-1, keepdims=True)
    factor = np.exp(rng.normal(0, augment.eda_gain, (n, 1, 1))) if augment.eda_gain else 1.0
    offset = rng.normal(0, augment.eda_offset, (n, 1, 1)) if augment.eda_offset else 0.0
    noise = rng.normal(0, augment.eda_noise, values.shape) if augment.eda_noise else 0.0
    varied: NDArray[Any] = centre + offset + (values - centre) * factor + noise
    if augment.eda_contact or augment.eda_spikes:
        varied = varied + contact(varied.shape, m.span, augment.eda_contact, augment.eda_spikes, rng)
    if augment.eda_sensor:  # which sees the contact's noise too
        for i in np.flatnonzero(rng.random(n) < augment.eda_sensor).tolist():
            varied[i] = as_sensor(varied[i], str(rng.choice(SENSORS)), m.span)
    return network_input(varied.astype(np.float32), m)


def _delay(values: NDArray[np.float32], shares: NDArray[np.float64]) -> NDArray[np.float32]:
    """Clips (n, 1, samples), each delayed by its share of the clip; the edge is repeated."""
    length = values.shape[-1]
    index = np.arange(length)[None, :] - np.rint(shares * length).astype(int)[:, None]
    return np.take_along_axis(values, np.clip(index, 0, length - 1)[:, None, :], axis=-1)


def _shift(clip: NDArray[np.uint8], dx: int, dy: int) -> NDArray[np.uint8]:
    """The clip (T, H, W, 3) moved by whole pixels, its border repeated."""
    height, width = clip.shape[1:3]
    y = np.clip(np.arange(height) + dy, 0, height - 1)
    x = np.clip(np.arange(width) + dx, 0, width - 1)
    return clip[:, y[:, None], x[None, :]]


def _jitter(clip: NDArray[np.uint8], pixels: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The clip (T, H, W, 3) as landmarks that are off would have cut it: shift, size and tilt, each by up to `pixels`
    of 100 at the border, and a quarter of that again in each frame by itself; the border is repeated."""
    frames, height, width = clip.shape[:3]
    off = rng.uniform(-1, 1, 4) + 0.25 * rng.uniform(-1, 1, (frames, 4))  # right, down, larger, tilted
    share = pixels / 100 * off
    shift, scale, angle = share[:, :2] * (width, height), 1 + 2 * share[:, 2], 2 * share[:, 3]
    out = np.empty_like(clip)
    for i in range(frames):
        warp = cv2.getRotationMatrix2D(
            ((width - 1) / 2, (height - 1) / 2), float(np.degrees(angle[i])), float(scale[i])
        )
        warp[:, 2] += shift[i]
        cv2.warpAffine(clip[i], warp, (width, height), dst=out[i], borderMode=cv2.BORDER_REPLICATE)
    return out


def _compressed(clip: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Each frame of the clip (T, H, W, 3) through JPEG."""
    out = np.empty_like(clip)
    for i, frame in enumerate(clip):
        _, coded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        assert decoded is not None  # it was coded here
        cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=out[i])
    return out


# ---- cached features for a fusion ----------------------------------------------------------------------------


@dataclass
class FeatureSet(Dataset[Batch]):
    """Windows over cached features. features[m]: (K, N, d); rows[m]: (W, S); present: (W, S, M) float32."""

    features: dict[str, Tensor]
    rows: dict[str, Tensor]
    present: Tensor
    labels: dict[str, Tensor]
    masking: Masking | None = None  # None: evaluation, first variant, nothing masked

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, draw: Draw) -> Batch:
        index, seed = torch.from_numpy(np.asarray(draw[0])), draw[1]
        present = self.present[index]
        g = torch.Generator().manual_seed(seed) if self.masking else None
        features = {}
        for name, table in self.features.items():
            rows = self.rows[name][index].clamp_min(0)
            if g is None:
                features[name] = table[0][rows]
                continue
            # one variant for the whole window, whose frames are flipped together
            variant = torch.randint(len(table), (len(index), 1), generator=g)
            picked = table[variant, rows]
            if self.masking and self.masking.noise:
                picked = picked + self.masking.noise * table.std() * torch.randn(picked.shape, generator=g)
            features[name] = picked
        if self.masking and g is not None:
            present = mask(present, self.masking, g)
        labels = {o: y[index] for o, y in self.labels.items()}
        # steps without any modality are not trained on
        seen = present.any(-1)
        labels = {o: torch.where(seen, y, torch.nan) for o, y in labels.items()}
        return {"features": features, "present": present}, labels


def feature_set(
    windows: WindowTable,
    stores: Mapping[str, ClipStore],
    features: dict[str, NDArray[np.float32]],
    masking: Masking | None,
) -> FeatureSet:
    names = windows.task.names
    rows = {m: shown_rows(windows, stores, m) for m in names}
    present = np.stack([presence(windows, stores, m) for m in names], -1)
    return FeatureSet(
        {m: torch.from_numpy(np.asarray(features[m], np.float32)) for m in names},
        {m: torch.from_numpy(rows[m]) for m in names},
        torch.from_numpy(present.astype(np.float32)),
        {o: torch.from_numpy(y) for o, y in windows.labels.items()},
        masking,
    )


def shown_rows(windows: WindowTable, stores: Mapping[str, ClipStore], name: str) -> NDArray[np.int64]:
    """(W, S) rows of the clips that the fusion sees: a pause shows the clip before it (`clips.presence.held`)."""
    rows = windows.rows[name]
    if name not in stores:
        return rows
    return held(rows, (rows >= 0) & stores[name].pause[np.maximum(rows, 0)])


def presence(windows: WindowTable, stores: Mapping[str, ClipStore], name: str) -> NDArray[np.bool_]:
    """(W, S): the clip of `shown_rows` exists, is usable, and is of the window's newest person."""
    rows = shown_rows(windows, stores, name)
    if name not in stores:
        return np.zeros(rows.shape, bool)
    at = np.maximum(rows, 0)
    return of_newest_person((rows >= 0) & stores[name].present[at], stores[name].track[at])


def mask(present: Tensor, masking: Masking, g: torch.Generator) -> Tensor:
    """Hide modalities, steps and the window's beginning; at the last step some modality always stays."""
    n, steps, modalities = present.shape
    out = present.clone()
    if masking.modality and modalities > 1:
        hide = torch.rand(n, generator=g) < masking.modality
        which = torch.randint(modalities, (n,), generator=g)
        out[hide, :, which[hide]] = 0
    if masking.step and steps > 1:
        out = out * (torch.rand(out.shape, generator=g) >= masking.step)
    if masking.warmup and steps > 1:
        absent = torch.randint(1, steps, (n,), generator=g) * (torch.rand(n, generator=g) < masking.warmup)
        out = out * (torch.arange(steps)[None, :] >= absent[:, None])[..., None]
    lost = out[:, -1].sum(-1) == 0
    out[lost, -1] = present[lost, -1]
    return out
