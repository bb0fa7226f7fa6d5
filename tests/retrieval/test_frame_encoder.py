"""Trackers' contracts: frames and detections in, the evaluator's features out; real packages where they are installed."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from tvilfm_plugin.export.crop_encoder import export_crop_encoder
from tvilfm_plugin.export.writing import ParityError
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.frame_encoder import FrameEncoder

SIZE = (48, 24)
# Boxes of the network's own size, so that nobody's resizing matters; one of them leaves the frame.
BOXES = np.array([[0, 0, 24, 48], [30, 10, 54, 58], [62, 20, 86, 68], [60.6, 12.2, 99.9, 63.1]], np.float32)


@pytest.fixture(scope="module")
def frame():
    return np.random.default_rng(3).integers(0, 256, (80, 90, 3), dtype=np.uint8)


def crops_of(frame: np.ndarray) -> list[np.ndarray]:
    """Cut to the frame, whole pixels; RGB of a BGR frame."""
    found = []
    for box in BOXES:
        x1, y1, x2, y2 = np.clip(box, 0, [90, 80, 90, 80]).astype(int)
        found.append(np.ascontiguousarray(frame[y1:y2, x1:x2, ::-1]))
    return found


@pytest.mark.parametrize("modality", ["rgb", "ir"])
def test_both_contracts_give_the_retrievers_features(small_retriever, frame, modality):
    expected = small_retriever.embed_images(crops_of(frame), Modality(modality))
    encoder = FrameEncoder(small_retriever, modality=modality)
    detections = SimpleNamespace(xyxy=BOXES)
    np.testing.assert_allclose(encoder.extract_embeddings(detections, frame), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.extract_embeddings(detections, frame, batch_size=3), expected, atol=1e-5)
    rgb = SimpleNamespace(image=torch.from_numpy(frame[:, :, ::-1].copy()).permute(2, 0, 1).contiguous())
    boxes = SimpleNamespace(geometry=SimpleNamespace(values=torch.from_numpy(BOXES)))
    first, second = encoder.encode([rgb, rgb], [boxes, SimpleNamespace(geometry=SimpleNamespace(values=torch.empty(0, 4)))])
    np.testing.assert_allclose(first.numpy(), expected, atol=1e-5)
    assert second.shape == (0, encoder.embedding_dim) and first.dtype == torch.float32 and not encoder.requirements.masks


def test_grey_frames_of_an_infrared_camera(small_retriever, frame):
    grey = frame[:, :, 0]
    encoder = FrameEncoder(small_retriever, modality="ir")
    detections = SimpleNamespace(xyxy=BOXES)
    same = encoder.extract_embeddings(detections, np.repeat(grey[:, :, None], 3, axis=2))
    np.testing.assert_allclose(encoder.extract_embeddings(detections, grey), same, atol=1e-6)


def test_boxes_outside_and_boxes_that_are_none(small_retriever, frame):
    encoder = FrameEncoder(small_retriever)
    outside = SimpleNamespace(xyxy=np.array([[200, 10, 220, 40], [0, 0, 24, 48]], np.float32))
    rows = encoder.extract_embeddings(outside, frame)
    assert not rows[0].any() and np.linalg.norm(rows[1]) == pytest.approx(1)
    with pytest.raises(ValueError, match="1 of 2 boxes are not finite"):
        encoder.extract_embeddings(SimpleNamespace(xyxy=np.array([[0, 0, 1, np.nan], [0, 0, 9, 9]])), frame)
    with pytest.raises(ValueError, match="no oriented boxes"):
        encoder.encode(
            [SimpleNamespace(image=torch.zeros(3, 9, 9, dtype=torch.uint8))],
            [SimpleNamespace(geometry=SimpleNamespace(values=torch.zeros(1, 5)))],
        )


@pytest.fixture(scope="module")
def exported(small_retriever, tmp_path_factory):
    return export_crop_encoder(small_retriever, tmp_path_factory.mktemp("encoder"), "ir")


def test_the_file_for_trackers_has_one_input_and_one_output(small_retriever, exported, frame):
    path, difference = exported
    assert path.name == "encoder-infrared.onnx" and difference < 1e-5
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert given.shape[1:] == [3, *SIZE] and not isinstance(given.shape[0], int) and given.type == "tensor(float)"
    assert output.shape[1] == small_retriever.fingerprint.dim
    crops = crops_of(frame)[:3]
    pixels = np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) / 255
    found = session.run(None, {given.name: pixels})[0]
    np.testing.assert_allclose(found, small_retriever.embed_images(crops, Modality.IR), atol=1e-5)
    with pytest.raises(ValueError, match="sees rgb or ir"):
        export_crop_encoder(small_retriever, path.parent, "text")


def test_an_encoder_that_differs_is_not_written(small_retriever, tmp_path, monkeypatch):
    monkeypatch.setattr("tvilfm_plugin.export.crop_encoder.LIMIT", 0.0)
    with pytest.raises(ParityError, match="so it is not written"):
        export_crop_encoder(small_retriever, tmp_path, "rgb")
    assert not list(tmp_path.iterdir())


# --- the packages themselves, where they are installed ----------------------------------------------------------------


@pytest.mark.real
def test_detections_of_supervision(small_retriever, frame):
    supervision = pytest.importorskip("supervision")
    found = FrameEncoder(small_retriever, modality="ir").extract_embeddings(supervision.Detections(xyxy=BOXES), frame)
    np.testing.assert_allclose(found, small_retriever.embed_images(crops_of(frame), Modality.IR), atol=1e-5)
    assert FrameEncoder(small_retriever).extract_embeddings(supervision.Detections.empty(), frame).shape[0] == 0


@pytest.mark.real
def test_boxmot_takes_the_encoder(small_retriever, frame):
    protocols = pytest.importorskip("boxmot.reid.protocols")
    structures = pytest.importorskip("boxmot.structures")
    perception = pytest.importorskip("boxmot.pipelines.perception")
    encoder = FrameEncoder(small_retriever)
    assert isinstance(encoder, protocols.AppearanceEncoder)
    pipeline = next(
        kind for kind in vars(perception).values() if isinstance(kind, type) and "reid" in getattr(kind, "__annotations__", {})
    )
    pipeline(reid=encoder)  # it checks what it is given
    image = torch.from_numpy(frame[:, :, ::-1].copy()).permute(2, 0, 1).contiguous()
    detections = structures.Detections(
        geometry=structures.Boxes(torch.from_numpy(BOXES)), scores=torch.ones(4), class_ids=torch.zeros(4, dtype=torch.int64),
        sample_id="a",
    )  # fmt: skip
    (found,) = encoder.encode([structures.Frame(image, "a")], [detections])
    np.testing.assert_allclose(found.numpy(), small_retriever.embed_images(crops_of(frame)), atol=1e-5)


@pytest.mark.real
def test_ultralytics_runs_the_file(small_retriever, exported, frame):
    reid = pytest.importorskip("ultralytics.trackers.utils.reid")
    boxes = BOXES[:3]
    centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    # Its own cropper enlarges a box; crops of the network's size leave resizing out.
    encoder = reid.ReID(str(exported[0]), device="cpu")
    assert encoder.imgsz == SIZE
    batch = encoder._crops_to_tensor([np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops_of(frame)[:3]])
    found = encoder.model(batch).cpu().numpy()
    np.testing.assert_allclose(found, small_retriever.embed_images(crops_of(frame)[:3], Modality.IR), atol=1e-5)
    features = encoder(frame, centred)
    assert np.stack(features).shape == (3, small_retriever.fingerprint.dim) and np.isfinite(features).all()
