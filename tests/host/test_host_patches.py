"""What is replaced inside the host: that the symptom is still there without it, and that it is gone with it."""

import importlib
import logging
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from repaired_host import small_config

pytest.importorskip("fastreid")

from fastreid.engine import defaults
from fastreid.utils import compute_dist

from tvilfm_plugin.host import replacing


@pytest.mark.parametrize("name", ["Baseline", "MGN"])
def test_flip_test_normalises_once(name):
    model_class = getattr(importlib.import_module("fastreid.modeling.meta_arch"), name)
    model = types.SimpleNamespace(pixel_mean=torch.tensor(10.0), pixel_std=torch.tensor(2.0), device="cpu")
    batch = {"images": torch.full((1, 3, 2, 2), 12.0)}
    for _ in range(2):
        assert torch.equal(model_class.preprocess_image(model, batch), torch.ones(1, 3, 2, 2))
    assert torch.equal(model_class.preprocess_image(model, batch["images"]), torch.ones(1, 3, 2, 2))
    assert batch["images"].max() == 12
    with pytest.raises(TypeError):
        model_class.preprocess_image(model, [batch])
    replacing.original(model_class, "preprocess_image")(model, batch)
    assert batch["images"].max() == 1, "the host no longer normalises in place: this patch can go"


def test_reranking_searches_on_the_cpu():
    features = torch.nn.functional.normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)))
    search = replacing.original(compute_dist, "compute_jaccard_distance")
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, AttributeError, RuntimeError)):
            search(features, k1=6, k2=2)
    distance = compute_dist.build_dist(features[:10], features[10:], metric="jaccard", k1=6, k2=2)
    assert np.array_equal(distance, search(features, k1=6, k2=2, search_option=3)[:10, 10:])
    few = compute_dist.compute_jaccard_distance(features[:5], k1=20, k2=2)
    assert np.array_equal(few, search(features[:5], k1=5, k2=2, search_option=3))
    assert np.isfinite(few).all() and not np.array_equal(few, search(features[:5], k1=20, k2=2, search_option=3))


def test_projects_that_search_with_gpu_classes_search_exactly_on_the_cpu():
    import faiss

    if faiss.get_num_gpus():
        pytest.skip("faiss has its own")
    rows = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    resources, options = faiss.StandardGpuResources(), faiss.GpuIndexFlatConfig()
    resources.setTempMemory(1 << 20)
    options.device = 0
    for gpu, cpu in ((faiss.GpuIndexFlatIP, faiss.IndexFlatIP), (faiss.GpuIndexFlatL2, faiss.IndexFlatL2)):
        index, twin = gpu(resources, 8, options), cpu(8)
        index.add(rows)
        twin.add(rows)
        assert np.array_equal(index.search(rows, 5)[1], twin.search(rows, 5)[1])
    assert faiss.index_cpu_to_gpu(resources, 0, twin) is twin


def test_random_affine_takes_the_old_arguments():
    import torchvision.transforms as transforms
    from fastreid.data.transforms import build_transforms

    with pytest.raises(TypeError, match="resample"):
        transforms.RandomAffine(degrees=10, resample=False, fillcolor=0)
    cfg = small_config()
    cfg.INPUT.AFFINE.ENABLED = True
    transform = build_transforms(cfg)
    affine = [step for step in transform.transforms if isinstance(step, transforms.RandomAffine)]
    assert affine and affine[0].degrees == [-10.0, 10.0] and affine[0].fill == 0
    assert transform(Image.new("RGB", (32, 64), "white")).shape == (3, 64, 32)


@pytest.mark.parametrize(("name", "depth"), [("regnet", "200x"), ("effnet", "b0")])
def test_backbone_files_are_found_from_any_folder(name, depth, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"fastreid.modeling.backbones.regnet.{name}")
    config = getattr(module, f"{name}_cfg")
    with pytest.raises(FileNotFoundError):
        type(config).merge_from_file(config, "fastreid/modeling/backbones/regnet/effnet/EN-B0_dds_8gpu.yaml")
    with pytest.raises(FileNotFoundError):
        config.merge_from_file("no/such/file.yaml")
    cfg = small_config()
    cfg.MODEL.BACKBONE.DEPTH = depth
    backbone = getattr(module, f"build_{name}_backbone")(cfg)
    assert sum(parameter.numel() for parameter in backbone.parameters()) > 10**6


def test_a_backbone_file_does_not_inherit_from_the_last_one():
    """RegNetX after RegNetY: its files do not mention SE_ON, which the other's set in the config that they share."""
    regnet = importlib.import_module("fastreid.modeling.backbones.regnet.regnet")

    def blocks(depth):
        cfg = small_config()
        cfg.MODEL.BACKBONE.DEPTH = depth
        return [name for name, _ in regnet.build_regnet_backbone(cfg).named_modules() if name.endswith(".f.se")]

    assert blocks("200y") and not blocks("200x")
    config = regnet.regnet_cfg
    folder = Path(regnet.__file__).parent
    for file in ("regnety/RegNetY-200MF_dds_8gpu.yaml", "regnetx/RegNetX-200MF_dds_8gpu.yaml"):
        type(config).merge_from_file(config, str(folder / file))
    assert config.REGNET.SE_ON, "the host's own reading no longer leaves the other file's value: this part can go"


@pytest.mark.skipif(importlib.util.find_spec("gdown") is not None, reason="gdown is installed")
def test_missing_pretrained_weights_are_explained_and_present_ones_load(tmp_path, monkeypatch):
    from fastreid.modeling.backbones import resnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="gdown"):
        replacing.original(resnet, "init_pretrained_weights")("18x")
    cfg = small_config()
    cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.PRETRAIN = "18x", True
    with pytest.raises(FileNotFoundError, match="PRETRAIN_PATH") as error:
        resnet.build_resnet_backbone(cfg)
    file = tmp_path / "checkpoints" / Path(resnet.model_urls["18x"]).name
    assert str(file) in str(error.value)
    weight = torch.full((64, 3, 7, 7), 0.5)
    torch.save({"conv1.weight": weight}, file)
    assert torch.equal(resnet.build_resnet_backbone(cfg).conv1.weight, weight)
    assert "gdown" not in sys.modules


def test_second_logger_setup_doubles_nothing(tmp_path, capsys):
    from fastreid.utils import logger as host_logger

    setup = replacing.original(host_logger, "setup_logger")

    def lines(configure, name):
        log = configure(name=name, color=False)
        log = configure(str(tmp_path / name), name=name, color=False)
        log = configure(str(tmp_path / name), name=name, color=True)
        log.info("a message")
        return capsys.readouterr().out.count("a message"), (tmp_path / name / "log.txt").read_text().count("a message")

    try:
        assert lines(setup, "doubled") == (3, 2)
        assert lines(defaults.setup_logger, "single") == (1, 1)
        assert lines(host_logger.setup_logger, "single-too") == (1, 1)
    finally:
        for name in ("doubled", "single", "single-too"):
            logging.getLogger(name).handlers.clear()
