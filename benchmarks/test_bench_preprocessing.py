"""Group `preprocessing`: ours against libraries that do the same."""

from __future__ import annotations

import numpy as np
import pytest

from jmt_edge.capture.simulated import open_simulated
from jmt_edge.preprocessing.eda import resample_eda
from jmt_edge.preprocessing.face import FaceDetector, FaceTracker, align_crop
from jmt_edge.preprocessing.sight import FaceSight
from jmt_edge.preprocessing.voice import voice_clip
from jmt_edge.tasks import AUDIO_RATE, CLIP_AUDIO_SAMPLES, get_task

VOICE, EDA = get_task("affect").modality("voice"), get_task("pain").modality("eda")


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(CLIP_AUDIO_SAMPLES) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    source = open_simulated("face", "sim:seed=900002&fps=25&size=640x480")
    source.open(0.0)
    return list(source.read(1.0).values)


def _mel_librosa(sound: np.ndarray) -> np.ndarray:
    import librosa

    power = librosa.feature.melspectrogram(
        y=sound, sr=AUDIO_RATE, n_fft=1024, win_length=882, hop_length=441, n_mels=64, htk=True, norm=None,
        fmax=AUDIO_RATE / 2, pad_mode="reflect",
    )  # fmt: skip
    return (10 * np.log10(np.maximum(power, 1e-10)) - VOICE.mean[0]) / VOICE.std[0]


@pytest.mark.benchmark(group="preprocessing: mel spectrogram of one clip")
class TestMel:
    def test_ours(self, benchmark, sound: np.ndarray) -> None:  # type: ignore[no-untyped-def]
        pytest.importorskip("librosa")
        np.testing.assert_allclose(voice_clip(sound, VOICE)[0], _mel_librosa(sound), atol=1e-3)
        benchmark(voice_clip, sound, VOICE)

    def test_librosa(self, benchmark, sound: np.ndarray) -> None:  # type: ignore[no-untyped-def]
        pytest.importorskip("librosa")
        benchmark(_mel_librosa, sound)

    def test_torch_stft(self, benchmark, sound: np.ndarray) -> None:  # type: ignore[no-untyped-def]
        torch = pytest.importorskip("torch")
        from jmt_edge.preprocessing.voice import mel_filters

        torch.set_num_threads(1)
        filters, window = torch.from_numpy(mel_filters()).float(), torch.hann_window(882)
        x = torch.from_numpy(sound)

        def run():  # type: ignore[no-untyped-def]
            spectrum = torch.stft(x, 1024, 441, 882, window, center=True, pad_mode="reflect", return_complex=True)
            decibel = 10 * torch.log10((filters @ spectrum.abs() ** 2).clamp_min(1e-10))
            return (decibel - VOICE.mean[0]) / VOICE.std[0]

        np.testing.assert_allclose(run().numpy(), voice_clip(sound, VOICE)[0], atol=2e-3)
        benchmark(run)


@pytest.mark.benchmark(group="preprocessing: EDA window to 512 Hz")
class TestEda:
    @pytest.mark.parametrize("rate", [4, 128, 1000])
    def test_ours(self, benchmark, rate: int) -> None:  # type: ignore[no-untyped-def]
        times = np.arange(0, 8, 1 / rate)
        values = (2 + np.sin(times)).astype(np.float32)
        clip, share = resample_eda(times, values, 7.0, EDA)
        assert share > 0.99
        assert np.abs(clip[0] - (2 + np.sin(7.0 - np.arange(2815, -1, -1) / 512))).max() < 0.01
        benchmark(resample_eda, times, values, 7.0, EDA)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = max(0.0, float(width)) * max(0.0, float(height))
    areas = [float(np.prod(np.subtract(box[2:], box[:2]))) for box in (a, b)]
    return both / (sum(areas) - both)


@pytest.mark.benchmark(group="preprocessing: face in a 640x480 frame")
class TestFace:
    def test_whole_frame(self, benchmark, frames: list[np.ndarray]) -> None:  # type: ignore[no-untyped-def]
        detector = FaceDetector()
        assert all(detector.detect(frame) for frame in frames)
        turn = iter(range(10**9))
        benchmark(lambda: detector.detect(frames[next(turn) % len(frames)]))

    def test_followed_and_cropped(self, benchmark, frames: list[np.ndarray]) -> None:  # type: ignore[no-untyped-def]
        tracker, turn = FaceTracker(FaceDetector()), iter(range(10**9))

        def step() -> np.ndarray:
            i = next(turn)
            frame = frames[i % len(frames)]
            face = tracker.update(frame, i / 25)
            assert face is not None
            return align_crop(frame, face, 112)

        benchmark(step)

    def test_orientation_and_coverings(self, benchmark, frames: list[np.ndarray]) -> None:  # type: ignore[no-untyped-def]
        """Once in 0.6 s."""
        sight, faces = FaceSight(), [FaceDetector().detect(frame)[0] for frame in frames]
        turn = iter(range(10**9))

        def step() -> object:
            i = next(turn) % len(frames)
            return sight.judge(frames[i], faces[i])

        benchmark(step)

    def test_mtcnn_in_pytorch(self, benchmark, frames: list[np.ndarray]) -> None:  # type: ignore[no-untyped-def]
        """The detector that the papers used."""
        facenet = pytest.importorskip("facenet_pytorch", reason="facenet-pytorch is not installed")
        import torch

        torch.set_num_threads(1)
        detector = facenet.MTCNN(keep_all=True)
        rgb = [np.ascontiguousarray(frame[:, :, ::-1]) for frame in frames]
        ours = FaceDetector()
        for frame, image in zip(frames[:5], rgb):
            boxes, _ = detector.detect(image)
            assert boxes is not None and max(_overlap(box, ours.detect(frame)[0].box) for box in boxes) > 0.4
        turn = iter(range(10**9))
        benchmark(lambda: detector.detect(rgb[next(turn) % len(rgb)]))
