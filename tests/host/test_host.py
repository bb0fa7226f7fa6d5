"""Each fix of the host: that the symptom is still there without it, and that it is gone with it."""

import contextlib
import importlib
import itertools
import logging
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from tiny_market import write_market
from torch import nn

pytest.importorskip("fastreid")

from fastreid.config import get_cfg
from fastreid.data import build as host_data
from fastreid.data import build_reid_test_loader, build_reid_train_loader, data_utils
from fastreid.engine import defaults, hooks, train_loop
from fastreid.evaluation import ReidEvaluator, reid_evaluation
from fastreid.solver import build as host_solver
from fastreid.solver import build_optimizer
from fastreid.utils import checkpoint, comm, compute_dist, events

from tvilfm_plugin.config import add_tvilfm_config
from tvilfm_plugin.files import writing
from tvilfm_plugin.host import batches, devices, mends, replacing, setup, steps
from tvilfm_plugin.host.optimizer import contiguous_optimizer

ROOT = Path(__file__).parents[2]
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the symptom is that there is no GPU")


def small_config(**solver):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [64, 32]
    cfg.DATALOADER.NUM_WORKERS = 0
    for key, value in solver.items():
        cfg.SOLVER[key] = value
    return cfg


@contextlib.contextmanager
def before(owner, *names):
    """What the host has under these names of one of its classes, as it was before it was mended."""
    with replacing.lend(owner, **{name: replacing.original(owner, name) for name in names}):
        yield


def python(code: str) -> list[str]:
    """Run code in a new interpreter at the root of the checkout; returns the lines it prints."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# --- importing -------------------------------------------------------------------------------------------------------


def test_import_needs_each_of_the_early_fixes():
    lines = python("""
        import importlib, importlib.util, sys

        spec = importlib.util.spec_from_file_location("gaps_alone", "tvilfm_plugin/host/gaps.py")
        gaps = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(gaps)

        def attempt(module):
            for name in [name for name in sys.modules if name.split(".")[0] == "fastreid"]:
                del sys.modules[name]
            try:
                importlib.import_module(module)
                print("imported")
            except (ImportError, RuntimeError) as error:
                print(error)
                gaps.declare_torchvision_operators(error)

        attempt("torchvision")
        attempt("fastreid.data.build")
        gaps.provide_torch_six()
        attempt("fastreid.data.build")
        gaps.provide_collections()
        attempt("fastreid.data.build")
        attempt("torchvision")
    """)
    torchvision, six, mapping, works, again = lines
    assert torchvision == "imported" or "torchvision::nms" in torchvision  # a CPU build of torchvision imports
    assert "torch._six" in six
    assert "Mapping" in mapping
    assert works == again == "imported"


def test_importing_the_plugin_costs_nothing_and_brings_everything_with_the_host():
    lines = python("""
        import sys
        import tvilfm_plugin
        print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "numpy", "fastreid", "yacs", "torchvision"}))
        import torchvision
        from fastreid.data.datasets import DATASET_REGISTRY
        from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
        from torch._six import container_abcs, int_classes, string_classes
        found = DATASET_REGISTRY.get("TriSYSUMM01"), META_ARCH_REGISTRY.get("TVILFM")
        print(*(kind.__name__ for kind in found), "fastreid.engine" in sys.modules)
        print(torchvision.__loader__.__class__.__name__, torchvision.__spec__.loader.__class__.__name__)
    """)
    assert lines == ["[]", "TriSYSUMM01 TVILFM False", "SourceFileLoader SourceFileLoader"]


def test_the_host_may_be_there_before_the_plugin():
    lines = python("""
        import collections, collections.abc, sys, types, torch
        collections.Mapping = collections.abc.Mapping
        sys.modules["torch._six"] = types.SimpleNamespace(string_classes=(str, bytes))
        try:
            import torchvision
        except RuntimeError:
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from fastreid.engine import DefaultTrainer, hooks
        from fastreid.data.datasets import DATASET_REGISTRY
        import tvilfm_plugin
        import fastreid.data, fastreid.engine
        print(fastreid.engine.launch.__module__, DATASET_REGISTRY.get("TriSYSUMM01").__name__)
        print(DefaultTrainer is fastreid.engine.DefaultTrainer, hasattr(hooks.EvalHook, "_evaluated_epoch"))
        print(fastreid.data.build_reid_train_loader.__module__)
    """)
    assert lines == ["tvilfm_plugin.host.launch TriSYSUMM01", "True True", "tvilfm_plugin.host.loaders"]


@pytest.mark.parametrize("first", ["modeling.backbones", "data.datasets.sysu_mm01", "engine.trainer", "modeling.mip.mip"])
def test_any_module_may_be_the_first(first):
    lines = python(f"""
        import importlib
        importlib.import_module("tvilfm_plugin.{first}")
        from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
        from fastreid.data.datasets import DATASET_REGISTRY
        print(DATASET_REGISTRY.get("TriSYSUMM01").__name__, META_ARCH_REGISTRY.get("MIP").__name__)
    """)
    assert lines == ["TriSYSUMM01 MIP"]


def test_without_fastreid_the_core_imports_and_the_rest_names_the_command():
    lines = python("""
        import importlib, importlib.machinery

        find = importlib.machinery.PathFinder.find_spec
        hide = lambda name, *rest: None if name.split(".")[0] == "fastreid" else find(name, *rest)
        importlib.machinery.PathFinder.find_spec = hide
        import tvilfm_plugin.modality
        import tvilfm_plugin.evaluation.ranking
        from tvilfm_plugin.host import presence
        from tvilfm_plugin.host.scripts import run_script

        print(presence.host_available())
        needs = {
            "attribute": lambda: tvilfm_plugin.TriTrainer,
            "module": lambda: importlib.import_module("tvilfm_plugin.engine.trainer"),
            "fastreid": lambda: importlib.import_module("fastreid.engine"),
            "script": lambda: run_script("tests/stock_script.py", []),
        }
        for name, act in needs.items():
            try:
                act()
                print(name, "works")
            except ImportError as error:
                print(presence.INSTALL_COMMAND in str(error))
    """)
    assert lines == ["False", "True", "True", "True", "True"]


def test_applying_twice_changes_nothing():
    names = [(owner, name, getattr(owner, name)) for owner, name in replacing._originals]
    assert names
    mends.apply()
    assert all(getattr(owner, name) is value for owner, name, value in names)


# --- patches ---------------------------------------------------------------------------------------------------------


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


# --- optimiser -------------------------------------------------------------------------------------------------------


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 4)
        self.heads = nn.Linear(4, 2)
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.linspace(-1, 1 + number, parameter.numel()).view_as(parameter))

    def forward(self, batch):
        logits = self.heads(torch.tanh(self.backbone(batch["images"])))
        self.autocast = logits.dtype
        return {"loss": (logits.float() ** 2).sum()}


def train(model, optimizer, number=3):
    x = torch.linspace(0, 1, 8).view(2, 4)
    for _ in range(number):
        loss = model({"images": x})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_the_host_trains_nothing_and_mended_it_does():
    cfg = small_config(OPT="Adam", BASE_LR=0.1, HEADS_LR_FACTOR=2.0)
    first = list(TwoLayers().parameters())
    model = TwoLayers()
    with before(torch.optim.Optimizer, "zero_grad"):
        after = train(model, build_optimizer(cfg, model)[0])
    assert all(torch.equal(a, b) for a, b in zip(first, after, strict=True)), "the host is repaired"
    model = TwoLayers()
    optimizer, parameters = build_optimizer(cfg, model)
    after = train(model, optimizer)
    parameters.assert_buffer_is_valid()
    assert len(optimizer.param_groups) == 2 and optimizer.state
    twin = TwoLayers()
    expected = train(twin, torch.optim.Adam(host_solver.get_default_optimizer_params(
        twin, base_lr=0.1, weight_decay=0.0005, heads_lr_factor=2.0)))
    for a, b, old in zip(after, expected, first, strict=True):
        assert torch.allclose(a, b, atol=1e-6) and not torch.equal(a, old)


def test_every_way_to_clear_gradients_keeps_flat_buffers_and_others_go_as_torch_says():
    model, free = TwoLayers(), TwoLayers()
    optimizer, parameters = build_optimizer(small_config(OPT="SGD", BASE_LR=0.1), model)
    other = torch.optim.SGD(free.parameters(), 0.1)
    for clear in (optimizer.zero_grad, lambda: optimizer.zero_grad(True), model.zero_grad, lambda: model.zero_grad(True)):
        old = model.heads.weight.clone()
        clear()
        model({"images": torch.ones(2, 4)})["loss"].backward()
        optimizer.step()
        parameters.assert_buffer_is_valid()
        assert not torch.equal(model.heads.weight, old)
    for clear in (other.zero_grad, free.zero_grad):
        free({"images": torch.ones(2, 4)})["loss"].backward()
        clear()
        assert free.heads.weight.grad is None


@pytest.mark.parametrize(("name", "fused"), [("Adam", True), ("SGD", True), ("RMSprop", None)])
def test_ordinary_optimizers_are_fused_where_the_config_says_so(name, fused):
    cfg = small_config(OPT=name)
    add_tvilfm_config(cfg)
    cfg.SOLVER.FUSED = True
    model = TwoLayers()
    assert build_optimizer(cfg, model)[0].defaults.get("fused") == fused
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    assert not build_optimizer(cfg, TwoLayers())[0].defaults.get("fused")


def test_own_groups_with_clipping_per_flat_group():
    cfg = small_config(OPT="SGD", MOMENTUM=0.0)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = True, 0.5
    model = TwoLayers()
    groups = [
        {"params": [parameter], "lr": 1.0, "weight_decay": 0.0, "freeze_status": "normal", "name": name}
        for name, parameter in model.named_parameters()
    ]
    before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    optimizer, _ = contiguous_optimizer(cfg, groups)
    after = torch.cat([value.flatten() for value in train(model, optimizer, 1)])
    assert (after - before).norm() == pytest.approx(0.5, rel=1e-3)
    with pytest.raises(ValueError, match="nothing to train"):
        contiguous_optimizer(cfg, [])


# --- loaders ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    root = tmp_path_factory.mktemp("market")
    write_market(root, identities=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        yield root


class Numbers(torch.utils.data.Dataset):
    """Items of any kind; a broken one raises."""

    def __init__(self, items, broken=None):
        self.items, self.broken = items, broken

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if index == self.broken:
            raise OSError(f"broken image {index}")
        return self.items[index]


@no_gpu
def test_the_hosts_loaders_need_cuda():
    build = replacing.original(host_data, "build_reid_train_loader")
    stock = replacing.lend(host_data, DataLoaderX=replacing.original(data_utils, "DataLoaderX"))
    with stock, pytest.raises((RuntimeError, AssertionError)):
        build(Numbers([0]), sampler=[0], total_batch_size=1)


def test_loaders_give_batches_on_the_device(market):
    cfg = small_config(IMS_PER_BATCH=8)
    loader = build_reid_train_loader(cfg, combineall=False)
    assert len(loader.dataset) == 32 and loader.dataset.num_classes == 4 and loader.num_workers == 0
    batches = iter(loader)
    for batch in itertools.islice(batches, 6):  # more than the four of an epoch: the loader is endless
        assert batch["images"].shape == (8, 3, 64, 32) and batch["images"].device.type == "cpu"
        assert batch["targets"].dtype == torch.int64 and isinstance(batch["img_paths"], list)
    assert build_reid_train_loader(cfg, num_workers=1, total_batch_size=16).num_workers == 1
    loader, queries = build_reid_test_loader(cfg, "Market1501")
    assert queries == 4 and loader.num_workers == 0
    assert [len(batch["targets"]) for batch in loader] == [32]
    explicit, queries = build_reid_test_loader(loader.dataset, 20, 4)
    assert queries == 4 and [len(batch["targets"]) for batch in explicit] == [20, 12]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_the_dataset_reaches_the_caller(workers):
    loader, _ = build_reid_test_loader(Numbers([1, 2, 3], broken=2), 1, 0, num_workers=workers)
    with pytest.raises(OSError, match="broken image 2"):
        list(loader)


def test_batches_that_can_never_be_filled_are_explained(market):
    cfg = small_config(IMS_PER_BATCH=33)
    with pytest.raises(ValueError, match="only 32 images"):
        build_reid_train_loader(cfg)
    cfg.DATALOADER.SAMPLER_TRAIN = "BalancedIdentitySampler"
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE = 16, 2
    with pytest.raises(ValueError, match="takes 8 identities .* only 4"):
        build_reid_train_loader(cfg)
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE = 10, 4
    with pytest.raises(ValueError, match="not a multiple of DATALOADER.NUM_INSTANCE 4"):
        build_reid_train_loader(cfg)
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE = 16, 4
    assert len(next(iter(build_reid_train_loader(cfg)))["targets"]) == 16


def test_collation_agrees_with_the_host_and_refuses_what_it_drops():
    samples = [{"images": torch.full((2,), float(i)), "targets": i, "score": i / 2, "path": str(i)} for i in range(3)]
    def collate_as_before(samples):
        with before(host_data, "fast_batch_collator"):
            return host_data.fast_batch_collator(samples)

    ours, theirs = batches.collate(samples), collate_as_before(samples)
    assert ours.keys() == theirs.keys() and ours["path"] == theirs["path"]
    assert all(torch.equal(ours[key], theirs[key]) for key in ("images", "targets", "score"))
    assert ours["score"].dtype == theirs["score"].dtype == torch.float64
    for value in (None, [1], (1, 2), np.float32(1), np.zeros(2)):
        assert collate_as_before([{"x": value}])["x"] is None
        with pytest.raises(TypeError, match=r"\['x'\]"):
            batches.collate([{"x": value}])


def test_device_falls_back_to_the_cpu(caplog):
    assert devices.usable_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert devices.usable_device("cuda:0") == torch.device("cpu")


# --- parts of the trainer --------------------------------------------------------------------------------------------


def test_evaluator_compiles_nothing(monkeypatch):
    calls = []
    monkeypatch.setattr(reid_evaluation, "compile_helper", lambda: calls.append(1))
    monkeypatch.setitem(sys.modules, "fastreid.evaluation.rank_cylib.rank_cy", None)
    ReidEvaluator(small_config(), 1)
    assert not calls
    with before(ReidEvaluator, "_compile_dependencies"):
        ReidEvaluator(small_config(), 1)
    assert calls


def amp_trainer():
    model = TwoLayers()
    optimizer, parameters = build_optimizer(small_config(BASE_LR=0.1), model)
    return train_loop.AMPTrainer(model, [{"images": torch.ones(2, 4)}] * 2, optimizer, parameters)


@no_gpu
def test_mixed_precision_on_the_cpu():
    with before(train_loop.AMPTrainer, "run_step", "__init__"), pytest.raises(AssertionError, match="CUDA"):
        amp_trainer().run_step()
    ours = amp_trainer()
    with events.EventStorage():
        ours.run_step()
    assert ours.model.autocast == torch.bfloat16
    assert not torch.equal(ours.model.heads.weight, TwoLayers().heads.weight)


class Recorder:
    """In the place of a GradScaler: what the step asks of it, in order; losses come out four times as large."""

    def __init__(self):
        self.asked = []

    def scale(self, loss):
        self.asked.append("scale")
        return 4 * loss

    def step(self, optimizer):
        self.asked.append("step")
        optimizer.step()

    def update(self):
        self.asked.append("update")


def test_a_mixed_step_scales_the_loss_steps_through_the_scaler_and_updates_it():
    gradients = []
    for scaler in (Recorder(), None):
        trainer = amp_trainer()
        trainer.grad_scaler = scaler or trainer.grad_scaler
        with events.EventStorage():
            trainer.run_step()
        gradients.append(trainer.model.heads.weight.grad.clone())
    assert torch.allclose(gradients[0], 4 * gradients[1], rtol=1e-5)
    trainer.grad_scaler = recorder = Recorder()
    with events.EventStorage():
        trainer.run_step()
    assert recorder.asked == ["scale", "step", "update"]


def test_losses_are_read_at_once(monkeypatch):
    seen, written = [], replacing.original(train_loop.SimpleTrainer, "_write_metrics")

    def spy(self, losses, data_time):
        seen.append(losses)
        written(self, losses, data_time)

    monkeypatch.setattr(train_loop.SimpleTrainer, "_write_metrics", steps._read_at_once(spy))
    losses = {"a": torch.tensor(1.5, requires_grad=True), "b": torch.tensor([2.25]), "c": torch.tensor(-0.5).double()}
    with events.EventStorage() as storage:
        train_loop.SimpleTrainer(TwoLayers(), [], None, None)._write_metrics(losses, 0.1)
        latest = storage.latest()
    assert {name: latest[name][0] for name in (*losses, "total_loss")} == {"a": 1.5, "b": 2.25, "c": -0.5, "total_loss": 3.25}
    trainer = train_loop.SimpleTrainer(TwoLayers(), [], None, None)
    trainer.iter = 7
    with events.EventStorage(), pytest.raises(FloatingPointError, match=r"at iteration 7 .a 1.5, b nan, c -0.5.*BASE_LR"):
        trainer._write_metrics(losses | {"b": torch.tensor(float("nan"))}, 0.1)
    first, *others = seen[0].values()
    assert not first.requires_grad and all(loss._base is first._base is not None for loss in others), "parts of one tensor"


@no_gpu
def test_ddp_on_the_cpu():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="device_ids"):
            nn.parallel.DistributedDataParallel(TwoLayers(), device_ids=[0], broadcast_buffers=False)
        model = defaults.DistributedDataParallel(TwoLayers(), device_ids=[0], broadcast_buffers=False)
        assert model({"images": torch.ones(1, 4)})["loss"].requires_grad
    finally:
        dist.destroy_process_group()


def test_checkpoints_are_whole_or_absent(tmp_path):
    def interrupted(folder):
        folder.mkdir()
        saver = checkpoint.Checkpointer(TwoLayers(), str(folder))
        saver.save("model", epoch=0)
        with pytest.raises((AttributeError, TypeError, RuntimeError, OSError)):
            saver.save("model", epoch=lambda: "this does not pickle")
        return folder / "model.pth"

    with before(checkpoint.Checkpointer, "save"), pytest.raises((RuntimeError, EOFError, OSError)):
        torch.load(interrupted(tmp_path / "host"))
    path = interrupted(tmp_path / "ours")
    assert torch.load(path)["epoch"] == 0
    assert sorted(os.listdir(path.parent)) == ["last_checkpoint", "model.pth"]
    saver = checkpoint.Checkpointer(TwoLayers(), str(path.parent))
    saver.save("best", metric=np.float64(0.5))
    assert saver.resume_or_load("")["metric"] == 0.5
    with pytest.raises(ValueError, match="plain file name"):
        saver.save("a/b")
    checkpoint.Checkpointer(TwoLayers(), str(tmp_path / "absent"), save_to_disk=False).save("model")
    assert not (tmp_path / "absent").exists()


def test_atomic_text(tmp_path):
    file = tmp_path / "a.txt"
    writing.write_text(file, "ä\n")
    assert file.read_text(encoding="utf-8") == "ä\n"
    with pytest.raises(RuntimeError), writing.atomic_file(file) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert file.read_text(encoding="utf-8") == "ä\n" and os.listdir(tmp_path) == ["a.txt"]
    assert file.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def stub_trainer(**values):
    values = {"epoch": 1, "max_epoch": 2, "iter": 4, "max_iter": 4, "iters_per_epoch": 2, **values}
    return types.SimpleNamespace(storage=events.EventStorage(), **values)


def test_evaluation_period_zero_and_evaluation_after_training():
    def evaluations(period, epochs=(0, 1), **state):
        calls = []
        hook = hooks.EvalHook(period, lambda: calls.append(hook.trainer.epoch))
        hook.trainer = stub_trainer()
        for hook.trainer.epoch in epochs:
            hook.after_epoch()
        vars(hook.trainer).update(state)
        hook.after_train()
        return calls

    with before(hooks.EvalHook, "after_train"), pytest.raises(ZeroDivisionError):
        evaluations(0)
    assert evaluations(0) == [1]
    assert evaluations(1) == [0, 1]
    assert evaluations(2) == [1]
    assert evaluations(3) == [1]
    # A crash in the last epoch: the host evaluates what is half trained.
    with before(hooks.EvalHook, "after_train"):
        assert evaluations(3, iter=3) == [1]
    assert evaluations(3, iter=3) == []
    # A finished run that is resumed has no epoch.
    assert evaluations(1, epochs=()) == [1]


def test_checkpoint_period_zero_no_test_set_and_the_best_metric():
    class Saver:
        def __init__(self):
            self.names = []

        def save(self, name, **_):
            self.names.append(name)

    def saved(period, tests=("Market1501",), metrics=(1.0, 0.5), best=None):
        hook = hooks.PeriodicCheckpointer(Saver(), period)
        hook.trainer = stub_trainer(cfg=types.SimpleNamespace(DATASETS=types.SimpleNamespace(TESTS=tests)))
        if best is not None:
            hook.load_state_dict(best)
        hook.before_train()
        with events.EventStorage() as storage:
            for hook.trainer.epoch, metric in enumerate(metrics):
                storage.put_scalar("metric", metric, smoothing_hint=False)
                hook.after_epoch()
        return hook.checkpointer.names, hook

    with before(hooks.PeriodicCheckpointer, "__init__"), pytest.raises(ZeroDivisionError):
        saved(0)
    with before(hooks.PeriodicCheckpointer, "before_train"), pytest.raises(IndexError):
        saved(1, tests=())
    assert saved(0)[0] == ["model_best", "model_final"]
    assert saved(1, tests=())[0] == ["model_best", "model_0000", "model_final"]
    names, hook = saved(1)
    assert saved(1, best=hook.state_dict(), metrics=(0.9,))[0] == ["model_0000"]


def test_writers_see_each_iteration_once_and_the_evaluation():
    def written(iterations):
        log = []

        class Writer(events.EventWriter):
            def write(self):
                log.append(events.get_event_storage().iter)

            def close(self):
                log.append("closed")

        hook = hooks.PeriodicWriter([Writer()], 1)
        hook.trainer = stub_trainer(iters_per_epoch=iterations, max_iter=iterations)
        with events.EventStorage() as storage:
            for hook.trainer.iter in range(iterations):
                storage.iter = hook.trainer.iter
                hook.after_step()
            hook.after_epoch()
            storage.iter = iterations
            hook.after_train()
        return log

    with before(hooks.PeriodicWriter, "after_step", "after_train"):
        assert written(2) == [0, 1, 1, "closed"]
    assert written(2) == [0, 1, 2, "closed"]
    with events.EventStorage() as storage:
        storage.epoch = 0
        printer = events.CommonMetricPrinter(1)
        printer.write()
        with pytest.raises(ZeroDivisionError):
            printer.write()


def test_the_whole_seed_is_set(tmp_path, monkeypatch):
    import random

    def draw():
        return random.random(), np.random.rand(), torch.rand(()).item()

    setup.seed_everything(7)
    first = draw()
    setup.seed_everything(7 + 2**32)
    assert draw() == first
    setup.seed_everything(8)
    assert draw() != first
    cfg = small_config()
    add_tvilfm_config(cfg)
    cfg.OUTPUT_DIR, cfg.SEED = str(tmp_path), 7
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    stand_in = types.ModuleType("stand_in")
    stand_in.default_setup = lambda cfg, args: torch.manual_seed(1)
    setup.seed_from_config(stand_in)
    stand_in.default_setup(cfg, None)
    assert draw() == first
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    stand_in.default_setup(cfg, None)
    assert draw() != first, "each rank has its own seed"
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    cfg.SEED = -1
    stand_in.default_setup(cfg, None)
    assert torch.equal(torch.rand(()), torch.rand((), generator=torch.Generator().manual_seed(1)))
