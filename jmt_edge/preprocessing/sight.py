"""Which way up a face is, and which of its regions are covered: what five landmarks and a score do not tell.

The landmarks of a detector stay plausible under a mask or upside down. Here the feature maps of a face mesh (MediaPipe,
Kartynnik et al. 2019) of the aligned face go to a small head that was trained on turned pictures and drawn coverings
(`scripts/train_face_sight.py`). `NOTICE` records where both come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .face import Face, align_crop
from .network import open_network

MESH = Path(__file__).parent / "data" / "face_mesh.onnx"
HEAD = Path(__file__).parent / "data" / "face_sight.onnx"
SIDE, MARGIN = 192, 0.2  # pixels of the mesh's picture; what it shows beyond the aligned crop
COVERED = 0.4
REGIONS = ("left eye", "right eye", "nose", "left mouth", "right mouth")

F32 = NDArray[np.float32]


def features(crop: NDArray[np.uint8]) -> tuple[F32, F32]:
    """The mesh's feature maps (128, 12, 12) and (128, 6, 6) of an aligned face (SIDE, SIDE, 3) uint8 RGB."""
    image = crop[None].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    fine, coarse = open_network(MESH).run(["fine", "coarse"], {"image": image})
    return fine[0], coarse[0]


class FaceSight:
    """Orientation and covering of a face, from its picture alone; 3 ms on one core.

    A region is covered above 0.4. Both eyes and the mouth: `face covered`; both eyes; both halves of the mouth; an eye
    and the half of the mouth or the nose below it: half of the face; else one eye. The nose alone is not missed.
    Raises DataError where the networks are missing from the installation.
    """

    def __init__(self) -> None:
        open_network(MESH), open_network(HEAD)  # before the first frame

    def judge(self, image_bgr: NDArray[np.uint8], face: Face) -> tuple[int, str]:
        """See `Sight`."""
        fine, coarse = features(align_crop(image_bgr, face, SIDE, MARGIN))
        turn, covered = open_network(HEAD).run(None, {"fine": fine[None], "coarse": coarse[None]})
        orientation = int(np.argmax(turn[0])) * 90
        return orientation, "" if orientation else covering(dict(zip(REGIONS, covered[0] > COVERED)))


def covering(covered: Mapping[str, bool]) -> str:
    """The name of what is covered, of `REGIONS` that are; empty where the rest is enough."""
    left, right = covered["left eye"], covered["right eye"]
    low_left, low_right = covered["left mouth"], covered["right mouth"]
    if left and right:
        return "face covered" if low_left and low_right else "eyes covered"
    if left or right:
        beside = low_left if left else low_right
        return "half of the face covered" if beside or covered["nose"] else "one eye covered"
    return "mouth covered" if low_left and low_right else ""
