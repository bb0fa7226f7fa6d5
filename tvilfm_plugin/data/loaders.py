"""Assembly of data sets, caches, samplers and batches from a fast-reid config."""

import logging
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.data
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.utils import comm
from yacs.config import CfgNode

from tvilfm_plugin.data.captions import Caption
from tvilfm_plugin.data.datasets.base import TriDataset
from tvilfm_plugin.data.eval_set import EvalSet, ModalityBatchSampler, collate_rows
from tvilfm_plugin.data.image_cache import ImageCache
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.data.paired import PairedDataset, TokenTable, TrainAugmentation
from tvilfm_plugin.data.samplers.pairs import IdentityPairSampler
from tvilfm_plugin.data.text_sources import read_phrases
from tvilfm_plugin.data.token_cache import stored_tokens
from tvilfm_plugin.data.tokenizer import TokenStore
from tvilfm_plugin.data.words import choose_tokenizer
from tvilfm_plugin.files.pictures import Window
from tvilfm_plugin.files.places import datasets_root
from tvilfm_plugin.host.devices import affordable_workers, to_device, usable_device, worker_context
from tvilfm_plugin.keys.host import HOST_SAMPLER, SAMPLER
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.registries import AUGMENTATION_REGISTRY, SAMPLER_REGISTRY, choose, register

logger = logging.getLogger("fastreid." + __name__)


def is_tri(name: str) -> bool:
    """Whether a registered data set carries pairs of modalities (ours) or is an ordinary one of the host."""
    kind = choose(DATASET_REGISTRY, name, "DATASETS.NAMES (or DATASETS.TESTS)")
    return isinstance(kind, type) and issubclass(kind, TriDataset)


def is_ours(cfg: CfgNode) -> bool:
    """Whether a config is one of ours, not an ordinary one of the host."""
    return any(is_tri(name) for name in (*cfg.DATASETS.NAMES, *cfg.DATASETS.TESTS))


def build_dataset(cfg: CfgNode, name: str, text: bool, verbose: bool = True) -> TriDataset:
    """The data set `name` as DATASETS and TEST describe it; without `text` its caption files may be missing."""
    return DATASET_REGISTRY.get(name)(
        root=datasets_root(),
        folder=cfg.DATASETS.ROOT,
        direction=cfg.DATASETS.DIRECTION,
        trial=cfg.DATASETS.TRIAL,
        modes=tuple(cfg.DATASETS.MODES),
        shots=tuple(cfg.DATASETS.SHOTS),
        draws=cfg.TEST.DRAWS,
        held_out=cfg.TEST.HELD_OUT,
        gallery=cfg.DATASETS.GALLERY,
        validation=cfg.SOLVER.EPOCH_RULE == "validation",
        split=cfg.TEST.SPLIT,
        protocol=cfg.TEST.PROTOCOL,
        rules=cfg.DATASETS.RULES,
        text=text,
        verbose=verbose and comm.is_main_process(),
    )


def image_cache(
    cfg: CfgNode, dataset: TriDataset, items: Sequence[Item], size: Sequence[int], resample: str, modality: Modality
) -> ImageCache:
    """Images of one modality at one size, decoded once; INPUT.IR_SCALING lets infrared ones have more than 8 bits."""
    window = Window.of(cfg.INPUT.IR_SCALING) if modality is Modality.IR else None
    return ImageCache([item.path for item in items], (size[0], size[1]), cache_folder(cfg, dataset), resample, window)


def cache_folder(cfg: CfgNode, dataset: TriDataset) -> Path:
    """Where decoded images, token ids and stored features of a data set lie."""
    return Path(cfg.DATASETS.CACHE) if cfg.DATASETS.CACHE else Path(dataset.dataset_dir) / ".cache"


class TrainLoader:
    """Endless training batches whose position can be stored and restored exactly.

    The host calls `iter` before it loads a checkpoint; workers therefore start with the first batch, not with `iter`.
    """

    def __init__(
        self,
        dataset: PairedDataset,
        sampler: IdentityPairSampler,
        batch_size: int,
        num_workers: int,
        device: torch.device,
        data: TriDataset,
    ) -> None:
        self.dataset = dataset
        self.data = data
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.device = device
        self.batches = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.sampler.start = self.batches * self.batch_size
        loader = torch.utils.data.DataLoader(
            self.dataset,
            # The data set makes whole batches of lists of pairs.
            sampler=torch.utils.data.BatchSampler(self.sampler, self.batch_size, drop_last=True),  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context=worker_context(self.num_workers),
            # A loader draws a number when it starts. From the global generator, a resumed run would train with other
            # dropout and noise than one that was not interrupted.
            generator=torch.Generator().manual_seed(self.sampler.seed),
        )
        for batch in loader:
            self.batches += 1
            yield to_device(batch, self.device)

    def state_dict(self) -> dict[str, int]:
        return {"batches": self.batches, "seed": self.sampler.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batches, self.sampler.seed = operator.index(state["batches"]), operator.index(state["seed"])


def _caption_tokens(cfg: CfgNode, dataset: TriDataset, items: Sequence[Item], modality: Modality) -> TokenTable:
    if cfg.INPUT.HUMAN_TEXTS:
        phrases = read_phrases(cfg.INPUT.HUMAN_TEXTS, dataset.key, sorted(dataset.train_ids))
        said = (phrases[dataset.train_ids[item.pid]] for item in items)
        captions = [Caption(some[number % len(some)]) for number, some in enumerate(said)]
    else:
        bank = dataset.captions[modality]
        captions = [bank[dataset.relative(item.path)] for item in items]
    texts = [text for caption in captions for text in (caption.text, caption.rephrase) if text]
    words = choose_tokenizer(cfg.MODEL)
    store = (
        stored_tokens(texts, cache_folder(cfg, dataset), words) if cfg.DATASETS.TOKEN_CACHE else TokenStore(texts, tokens=words)
    )
    index = [(store.row(c.text), store.row(c.rephrase) if c.rephrase else -1) for c in captions]
    return TokenTable(store.ids, np.array(index, dtype=np.int64), words.end)


def reads_captions(cfg: CfgNode, training: bool) -> bool:
    """Whether a run with text opens the data set's caption files: phrases by identity may take their place."""
    if training:
        return not cfg.INPUT.HUMAN_TEXTS
    return bool(set(cfg.TEST.TEXT_SOURCES) - {"none", "human"})


def crop_and_flip(cfg: CfgNode) -> tuple[int, float]:
    """Pixels of padding before the crop, and probability of a mirror image; 0 where the config switches them off."""
    padding, flip = cfg.INPUT.PADDING, cfg.INPUT.FLIP
    return padding.SIZE if padding.ENABLED else 0, flip.PROB if flip.ENABLED else 0.0


def _augmentation(cfg: CfgNode) -> TrainAugmentation:
    caj = cfg.INPUT.CAJ
    pad, flip_prob = crop_and_flip(cfg)
    return TrainAugmentation.caj(
        pad=pad,
        flip_prob=flip_prob,
        gray_prob=caj.GRAY_PROB,
        rgb_erasing_prob=caj.RGB_ERASING_PROB,
        ir_erasing_prob=caj.IR_ERASING_PROB,
        exchange_prob=caj.EXCHANGE_PROB,
        ir_gray_prob=caj.IR_GRAY_PROB,
        ir_channels=caj.IR_CHANNELS,
        ir_crop_gray_prob=caj.IR_CROP_GRAY_PROB,
        erasing_area=tuple(caj.ERASING_AREA),
    )


def sampler_options(cfg: CfgNode, data: TriDataset, seed: int) -> dict[str, Any]:
    """The arguments of a `PairSampler` for this process's share."""
    return {
        "rgb_pids": [item.pid for item in data.train_rgb],
        "ir_pids": [item.pid for item in data.train_ir],
        "batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "num_instances": cfg.DATALOADER.NUM_INSTANCE,
        "seed": seed,
        "rank": comm.get_rank(),
        "world_size": comm.get_world_size(),
    }


@register(SAMPLER_REGISTRY, "IdentityPairSampler")
def identity_pairs(cfg: CfgNode, data: TriDataset, seed: int) -> IdentityPairSampler:
    """Pairs of TVI-LFM: identities first, then one visible and one infrared image of each."""
    return IdentityPairSampler(**sampler_options(cfg, data, seed))


def pair_options(cfg: CfgNode, data: TriDataset, batches_per_epoch: int) -> dict[str, Any]:
    """The arguments of `Pairs`: the training images, decoded once, and their labels."""
    size, resample = cfg.INPUT.SIZE_TRAIN, cfg.INPUT.RESAMPLE_TRAIN
    return {
        "rgb_images": image_cache(cfg, data, data.train_rgb, size, resample, Modality.RGB),
        "ir_images": image_cache(cfg, data, data.train_ir, size, resample, Modality.IR),
        "rgb_items": data.train_rgb,
        "ir_items": data.train_ir,
        "batches_per_epoch": batches_per_epoch,
        "batch_size": cfg.SOLVER.IMS_PER_BATCH,
    }


@register(AUGMENTATION_REGISTRY, "CAJ")
def caj_pairs(cfg: CfgNode, data: TriDataset, text: bool, batches_per_epoch: int) -> PairedDataset:
    """Two views of the visible and one of the infrared image, by channel-augmented joint learning, and both captions."""
    return PairedDataset(
        **pair_options(cfg, data, batches_per_epoch),
        rgb_tokens=_caption_tokens(cfg, data, data.train_rgb, Modality.RGB) if text else None,
        ir_tokens=_caption_tokens(cfg, data, data.train_ir, Modality.IR) if text else None,
        augmentation=_augmentation(cfg),
        rephrase_prob=cfg.INPUT.REPHRASE_PROB,
        views=cfg.TVILFM.BANK.VIEWS if text else 0,
    )


def sampler_of(cfg: CfgNode, data: TriDataset, seed: int) -> Any:
    """The pair sampler that DATALOADER.SAMPLER_TRAIN names; raises where the data cannot fill its batches."""
    name = cfg.DATALOADER.SAMPLER_TRAIN
    name = "IdentityPairSampler" if name == HOST_SAMPLER else name  # `check_config` warns: the host's knows no pairs
    return choose(SAMPLER_REGISTRY, name, SAMPLER)(cfg, data, seed)


def build_train_loader(cfg: CfgNode, text: bool, seed: int) -> TrainLoader:
    """Batches of `SOLVER.IMS_PER_BATCH` visible-infrared pairs, as DATALOADER.SAMPLER_TRAIN and INPUT.AUGMENTATION say.

    Args:
        text: whether samples carry the tokens of both captions.
        seed: seed of the pair sampler and, through it, of every augmentation.
    """
    if len(cfg.DATASETS.NAMES) != 1:
        raise ValueError(f"DATASETS.NAMES must name one Tri- data set, not {tuple(cfg.DATASETS.NAMES)}.")
    data = build_dataset(cfg, cfg.DATASETS.NAMES[0], text and reads_captions(cfg, training=True))
    if 0 < cfg.MODEL.HEADS.NUM_CLASSES < data.num_classes:
        raise ValueError(
            f"MODEL.HEADS.NUM_CLASSES is {cfg.MODEL.HEADS.NUM_CLASSES}, but {data.num_classes} people are trained on; set 0, "
            "which counts them."
        )
    if comm.is_main_process():
        data.show_train()
    sampler = sampler_of(cfg, data, seed)
    pairs = choose(AUGMENTATION_REGISTRY, cfg.INPUT.AUGMENTATION, "INPUT.AUGMENTATION")(
        cfg, data, text, sampler.batches_per_epoch
    )
    share = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    # Two views of the visible image and one of the infrared one, at most.
    workers = affordable_workers(cfg.DATALOADER.NUM_WORKERS, 3 * share, cfg.INPUT.SIZE_TRAIN)
    return TrainLoader(pairs, sampler, share, workers, usable_device(cfg.MODEL.DEVICE), data)


class EvalLoader:
    """Batches of one modality each over this process's share of an `EvalSet`, on the model's device."""

    def __init__(self, dataset: EvalSet, data: TriDataset, batch_size: int, num_workers: int, device: torch.device) -> None:
        self.dataset = dataset
        self.data = data
        self.device = device
        self.loader = torch.utils.data.DataLoader(
            dataset,
            batch_sampler=ModalityBatchSampler(dataset, batch_size, comm.get_rank(), comm.get_world_size()),
            num_workers=num_workers,
            collate_fn=collate_rows,
            pin_memory=device.type == "cuda",
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.loader:
            yield to_device(batch, self.device)


def build_eval_loader(cfg: CfgNode, name: str, text: bool) -> EvalLoader:
    """All queries and the union of all gallery draws of the data set `name`, each image once."""
    data = build_dataset(cfg, name, text)
    if comm.is_main_process():
        data.show_test()
    rows = EvalSet(
        image_cache(cfg, data, data.query, cfg.INPUT.SIZE_TEST, cfg.INPUT.RESAMPLE_TEST, data.query_modality),
        image_cache(cfg, data, data.gallery, cfg.INPUT.SIZE_TEST, cfg.INPUT.RESAMPLE_TEST, data.gallery_modality),
        data.query,
        data.gallery,
        data.query_modality,
        data.gallery_modality,
    )
    # The images are decoded already: a forked worker costs more than it brings.
    return EvalLoader(rows, data, cfg.TEST.IMS_PER_BATCH, 0, usable_device(cfg.MODEL.DEVICE))
