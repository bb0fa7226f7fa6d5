"""Infrared of more than 8 bits: one window for training, evaluation, search, an export, trackers, captioners, the web page."""

import io
import types

import numpy as np
import pytest
import torch
from oracles_modeling import small_model, write_tower
from PIL import Image

from tvilfm_plugin.captioning.finetune import PairDataset, TrainingOptions
from tvilfm_plugin.captioning.pairs import TextPair
from tvilfm_plugin.data.image_cache import ImageCache
from tvilfm_plugin.files.pictures import DepthError, Window, open_picture
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.retrieval.tracker import CropEncoder
from tvilfm_plugin.retrieval.web_query import decode_picture
from tvilfm_plugin.runtime import OnnxRetriever
from tvilfm_plugin.runtime.model import OnnxModel

WINDOW = Window(20000, 28000)


def test_one_window_everywhere(tmp_path):
    counts = np.random.default_rng(0).integers(19000, 29000, (60, 30)).astype(np.uint16)
    file = tmp_path / "thermal.tif"
    Image.fromarray(counts).save(file)
    torch.manual_seed(1)
    model = small_model("TVILFM", write_tower(tmp_path))
    retriever = Retriever(model, image_size=(48, 24), ir_window=WINDOW)
    (cached,) = ImageCache([str(file)], (48, 24), tmp_path / "cache", window=WINDOW)
    assert np.array_equal(retriever.pixels(str(file), Modality.IR), cached)
    vector = retriever.embed_images([file], Modality.IR)
    assert np.array_equal(retriever.embed_images([counts], Modality.IR), vector)
    assert np.array_equal(CropEncoder(retriever, modality="ir")([counts]), vector)
    described = {"image_size": [48, 24], "resample": "lanczos", "ir_scaling": list(WINDOW), "members": ["ir"]}
    facts = {**described, "tokenizer": None, "fusion": None, "fingerprint": retriever.fingerprint.to_dict()}
    runtime = OnnxRetriever(OnnxModel(tmp_path, facts=facts))
    assert np.array_equal(runtime.pixels(str(file), Modality.IR), cached)
    options = TrainingOptions(ir_scaling=WINDOW)
    (pair,) = PairDataset([TextPair(str(file), ("a man",))], types.SimpleNamespace(prepare=np.asarray), options, fixed=True)
    whole = np.asarray(open_picture(file, WINDOW))
    assert np.array_equal(pair["image"], whole)
    sent = io.BytesIO()
    Image.fromarray(counts).save(sent, "PNG")
    assert np.array_equal(np.asarray(decode_picture(sent.getvalue(), WINDOW)), whole)
    for search in (retriever, runtime, Retriever(model, image_size=(48, 24))):
        with pytest.raises(DepthError, match="thermal.tif: it has more than 8 bits"):
            search.embed_images([file], Modality.RGB)
