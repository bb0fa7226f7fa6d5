"""Fine-tune a captioner on image-text pairs with transformers' Trainer."""

import json
import logging
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvilfm_plugin.captioning.captioner import CAPTIONER_REGISTRY, Captioner, Decoding, load_captioner
from tvilfm_plugin.captioning.pairs import TextPair
from tvilfm_plugin.captioning.rows import write_json
from tvilfm_plugin.captioning.small_blip import build_small_blip
from tvilfm_plugin.captioning.weights import Weights
from tvilfm_plugin.files.pictures import Window, open_picture
from tvilfm_plugin.files.writing import atomic_file, make_folder

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SMALL = "small"
"""In place of a folder or hub id: a small BLIP, built from its configuration for the vocabulary of the pairs."""

_MEMORY = 2 << 30  # bytes of prepared images that are held


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: passes over the pairs; `steps` > 0 takes precedence.
        batch_size: pairs per device.
        warmup: share of the steps in which the rate rises; it falls to zero afterwards.
        augment: flip, shift and change the brightness of training images.
        keep_images: hold prepared images in memory from the first epoch on, as long as they need no more than 2 GB.
        save_every: checkpoint period in steps; 0 = four times in a run.
        workers: processes that load images.
        device: "cpu" leaves a GPU alone.
        ir_scaling: lowest and highest count of infrared pictures with more than 8 bits, as INPUT.IR_SCALING; () refuses them.
    """

    epochs: float = 10.0
    steps: int = 0
    batch_size: int = 32
    learning_rate: float = 1e-5
    weight_decay: float = 0.05
    warmup: float = 0.05
    amp: str = "none"
    augment: bool = False
    keep_images: bool = True
    save_every: int = 0
    workers: int = 0
    seed: int = 0
    device: str = ""
    ir_scaling: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.amp not in ("none", "bf16", "fp16"):
            raise ValueError(f"Unknown precision {self.amp!r}; choices are none, bf16, fp16.")


class PairDataset:
    """Pairs as a map-style data set: image and one of its captions; `fixed` (validation): undistorted, its first one."""

    def __init__(self, pairs: Sequence[TextPair], captioner: Captioner, options: TrainingOptions, *, fixed: bool) -> None:
        self.pairs, self.captioner, self.fixed = list(pairs), captioner, fixed
        self.augment, self.seed = options.augment and not fixed, options.seed
        self.window = Window.of(options.ir_scaling)
        self._kept: dict[int, Any] | None = {} if options.keep_images else None
        self._room = _MEMORY
        self._asked = 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self._asked += 1
        rng = random.Random(f"{self.seed}/{self._asked}/{index}")
        texts = self.pairs[index].texts
        image = self._prepared(index)
        if self.augment:
            processor = self.captioner.processor.image_processor
            image = distort(image, rng, processor.image_mean, processor.image_std)
        return {"image": image, "text": texts[0] if self.fixed else rng.choice(texts)}

    def _prepared(self, index: int) -> Any:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        prepared = self.captioner.prepare(open_picture(self.pairs[index].image, self.window))
        if self._kept is not None and prepared.nbytes <= self._room:
            self._room -= prepared.nbytes
            self._kept[index] = prepared
        return prepared


def distort(pixels: "torch.Tensor", rng: random.Random, mean: Sequence[float], std: Sequence[float]) -> "torch.Tensor":
    """Flip, shift (edges repeat) by up to a twelfth, brighten (3, H, W) by up to a tenth; colours keep their names."""
    import torch

    height, width = pixels.shape[-2:]
    dy, dx = rng.randint(-(height // 12), height // 12), rng.randint(-(width // 12), width // 12)
    rows = (torch.arange(height) + dy).clamp(0, height - 1)
    columns = (torch.arange(width) + dx).clamp(0, width - 1)
    columns = columns.flip(0) if rng.random() < 0.5 else columns
    gain = rng.uniform(0.9, 1.1)
    offset = torch.tensor([(gain - 1.0) * m / s for m, s in zip(mean, std, strict=True)]).view(3, 1, 1)
    return pixels[:, rows[:, None], columns] * gain + offset


def build_captioner(kind: str, init: str, pairs: Sequence[TextPair], **small: Any) -> Captioner:
    """The captioner to fine-tune: `init` is a folder, a hub id, or "small", which `build_small_blip(**small)` builds."""
    if init != SMALL:
        captioner = load_captioner(kind, init)
    elif kind != "blip":
        raise ValueError(f"init {SMALL!r} builds a BLIP; captioner {kind!r} needs a folder or a hub id.")
    else:
        from tvilfm_plugin.captioning.blip import BlipCaptioner

        model, processor = build_small_blip((text for pair in pairs for text in pair.texts), **small)
        captioner = BlipCaptioner(model, processor, weights=Weights(SMALL, SMALL, "untrained", {}))
    if not captioner.trainable:
        choices = ", ".join(sorted(name for name, kind in CAPTIONER_REGISTRY.items() if kind.trainable))
        raise ValueError(f"Captioner {kind!r} cannot be fine-tuned here; choices are {choices}.")
    return captioner


def finetune(
    captioner: Captioner,
    train: Sequence[TextPair],
    validation: Sequence[TextPair],
    out: Path,
    options: TrainingOptions,
    *,
    resume: bool = True,
) -> dict[str, Any]:
    """Train a captioner and save it to `out`, with `training.json` and a sheet of sample captions beside it.

    Checkpoints lie in `out/checkpoints`; a run that finds one there goes on with it. Under torchrun every process trains on
    its share of each batch.

    Returns:
        what `training.json` says: losses, steps, options.
    """
    from transformers import PrinterCallback

    per_epoch = max(1, -(-len(train) // (options.batch_size * _world_size())))
    steps = options.steps or max(1, round(options.epochs * per_epoch))
    checkpoints = out / "checkpoints"

    def collate(samples: Sequence[dict[str, Any]]) -> dict[str, "torch.Tensor"]:
        return captioner.training_batch([sample["image"] for sample in samples], [sample["text"] for sample in samples])

    trainer = _trainer_class()(
        model=captioner.model.train(),
        args=_arguments(options, checkpoints, steps, evaluates=bool(validation)),
        data_collator=collate,
        train_dataset=PairDataset(train, captioner, options, fixed=False),  # type: ignore[arg-type]
        eval_dataset=PairDataset(validation, captioner, options, fixed=True) if validation else None,  # type: ignore[arg-type]
        callbacks=[_losses_to_the_log(steps)],
    )
    trainer.remove_callback(PrinterCallback)
    last = last_complete_checkpoint(checkpoints) if resume else None
    if last:
        logger.info(f"Going on with {last}.")
    result = trainer.train(resume_from_checkpoint=str(last) if last else None)
    origin = {"init": captioner.weights.name, "init_revision": captioner.weights.revision}
    pairs = {"pairs": len(train), "validation_pairs": len(validation)}
    report = {**origin, **pairs, **_course_of(trainer, result), "options": asdict(options)}
    if trainer.is_world_process_zero():
        captioner.model.eval()
        captioner.save(out)
        write_json(out / "training.json", report)
        shown = validation or train
        shown = shown[:: max(1, len(shown) // 12)][:12]
        draw_sample_sheet(captioner, shown, out / "samples.png", Window.of(options.ir_scaling))
    trainer.accelerator.wait_for_everyone()
    return report


def _course_of(trainer: Any, result: Any) -> dict[str, Any]:
    return {
        "steps": trainer.state.global_step,
        "processes": _world_size(),
        "training_loss": result.training_loss,
        "validation_losses": [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry],
        "seconds": round(result.metrics.get("train_runtime", 0.0), 1),
    }


def _arguments(options: TrainingOptions, checkpoints: Path, steps: int, evaluates: bool) -> Any:
    """The options in the Trainer's words."""
    import torch
    from transformers import TrainingArguments

    period = options.save_every or max(1, -(-steps // 4))
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        warmup_steps=round(options.warmup * steps),
        lr_scheduler_type="cosine",
        bf16=options.amp == "bf16",
        fp16=options.amp == "fp16",
        eval_strategy="steps" if evaluates else "no",
        eval_steps=period,
        save_strategy="steps",
        save_steps=period,
        save_total_limit=2,
        logging_steps=max(1, steps // 50),
        remove_unused_columns=False,
        dataloader_num_workers=options.workers,
        dataloader_pin_memory=torch.cuda.is_available() and options.device != "cpu",
        use_cpu=options.device == "cpu",
        report_to="none",
        seed=options.seed,
        label_names=["labels"],
        ddp_find_unused_parameters=True,
        disable_tqdm=not sys.stderr.isatty(),
    )


def _losses_to_the_log(steps: int) -> Any:
    """Losses go to the log, not to the standard output between progress bars."""
    from transformers import TrainerCallback

    class Quiet(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if state.is_world_process_zero and logs:
                shown = {k: round(v, 5) for k, v in logs.items() if k in ("loss", "eval_loss", "learning_rate")}
                logger.info(f"step {state.global_step} of {steps}: {shown}")

    return Quiet()


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest of the Trainer's checkpoints that no kill cut short; None where there is none.

    The Trainer writes file by file, `trainer_state.json` last, so a checkpoint whose state can be read is complete.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            logger.warning(f"{path} is incomplete (its run was killed while it wrote): passed over.")
        else:
            return path
    return None


def _trainer_class() -> Any:
    """transformers' Trainer, in spite of a working directory that holds a folder `datasets`.

    Python takes such a folder for a package, and the Trainer takes the package for Hugging Face's `datasets`.
    """
    from transformers import trainer

    if not hasattr(getattr(trainer, "datasets", None), "Dataset"):
        trainer.is_datasets_available = lambda: False  # type: ignore[assignment]
    return trainer.Trainer


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def draw_sample_sheet(captioner: Captioner, pairs: Sequence[TextPair], file: Path, window: Window | None = None) -> None:
    """A picture of some images with their first given caption and the captioner's own."""
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images = [open_picture(pair.image, window) for pair in pairs]
    decoding, captioner.decoding = captioner.decoding, Decoding(max_new_tokens=50)
    said = captioner.describe([captioner.prepare(image) for image in images], 0)
    captioner.decoding = decoding
    columns = 4
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for n, (pair, image, description) in enumerate(zip(pairs, images, said, strict=True)):
        axes = figure.add_subplot(rows, columns, n + 1)
        axes.imshow(image)
        axes.set_axis_off()
        given, made = (textwrap.fill(text, 44) for text in (pair.texts[0], description.text or "(nothing)"))
        axes.set_title(f"given: {given}\nmade: {made}", fontsize=7, loc="left")
    make_folder(file.parent)
    with atomic_file(file) as stream:
        figure.savefig(stream, dpi=110, format="png")
