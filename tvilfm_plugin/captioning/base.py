"""What a captioner is: images in, descriptions out, and a record of how they were made."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from tvilfm_plugin.captioning.weights import Weights, find_weights
from tvilfm_plugin.modality import Modality

if TYPE_CHECKING:
    import torch
    from PIL import Image

_Kind = TypeVar("_Kind", bound=type)


class Registry(dict[str, Any]):
    """Classes by name. (The core does without fast-reid's registry, so that captions can be made where it is missing.)"""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def register(self, name: str) -> Callable[[_Kind], _Kind]:
        """Decorator that enters a class under a name."""

        def enter(kind: _Kind) -> _Kind:
            if name in self:
                raise KeyError(f"A {self.what} named {name!r} is registered already.")
            self[name] = kind
            return kind

        return enter

    def __missing__(self, name: str) -> Any:
        raise KeyError(f"Unknown {self.what} {name!r}; choices are {', '.join(sorted(self))}.")


CAPTIONER_REGISTRY = Registry("captioner")


class Description(NamedTuple):
    """What a captioner says of one image; `attributes` only if it was asked for them, `error` if it failed."""

    text: str
    attributes: dict[str, Any] | None = None
    error: str = ""


@dataclass(frozen=True)
class Decoding:
    """How text is drawn from a model.

    Attributes:
        max_new_tokens: the paper's 50.
        num_beams: 1 = no beam search.
        temperature: 0 = greedy, the paper's choice for captions.
        top_p: of nucleus sampling.
        seed: of sampling; without sampling it changes nothing.
    """

    max_new_tokens: int = 50
    num_beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of transformers' `generate`."""
        chosen: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "num_beams": self.num_beams}
        if self.temperature > 0:
            return {**chosen, "do_sample": True, "temperature": self.temperature, "top_p": self.top_p}
        return {**chosen, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}


class Captioner(ABC):
    """A model that describes images. Register subclasses in `CAPTIONER_REGISTRY`.

    `model`, in eval mode on its device, and `processor` are transformers'; `prompt` begins the text, or asks ("": its own).
    """

    default_prompt: ClassVar[str] = ""
    trainable: ClassVar[bool] = False

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        weights: Weights,
        modality: Modality = Modality.RGB,
        decoding: Decoding | None = None,
        prompt: str = "",
    ) -> None:
        self.model, self.processor, self.weights = model, processor, weights
        self.modality = modality
        self.decoding = decoding or Decoding()
        self.prompt = prompt or self.default_prompt

    @classmethod
    def load(cls, name: str, *, device: str = "cpu", dtype: str = "float32", **options: Any) -> "Captioner":
        """Read model and processor of a folder or hub id `org/name[@revision]`, in float32, bfloat16 or float16."""
        import torch

        weights = find_weights(name)
        quiet_without_a_terminal()
        model, processor = cls.read(weights, getattr(torch, dtype))
        return cls(model.to(device).eval(), processor, weights=weights.checked(model), **options)

    @classmethod
    @abstractmethod
    def read(cls, weights: Weights, dtype: "torch.dtype") -> tuple[Any, Any]:
        """Model and processor."""

    @abstractmethod
    def prepare(self, image: "Image.Image") -> Any:
        """What `describe` wants of one image; runs in threads."""

    @abstractmethod
    def describe(self, prepared: Sequence[Any], seed: int) -> list[Description]:
        """Describe some images that went through `prepare`."""

    def provenance(self) -> dict[str, Any]:
        """What a reader must know to make the same text again."""
        return {
            "captioner": type(self).__name__,
            "model": self.weights.name,
            "revision": self.weights.revision,
            "prompt": self.prompt,
            "modality": self.modality.value,
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            **asdict(self.decoding),
        }

    # --- fine-tuning ---------------------------------------------------------------------------------------------------
    def training_batch(self, images: Sequence[Any], texts: Sequence[str]) -> dict[str, "torch.Tensor"]:
        """Arguments of the model's forward, `labels` included, for prepared images and their captions."""
        trainable = ", ".join(sorted(name for name, kind in CAPTIONER_REGISTRY.items() if kind.trainable))
        raise NotImplementedError(f"{type(self).__name__} cannot be fine-tuned here; captioners that can: {trainable}.")

    def save(self, folder: Path) -> None:
        """Write model (safetensors) and processor to a folder that `load` reads."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.processor.save_pretrained(folder)


@contextmanager
def seeded(seed: int, device: "torch.device") -> Any:
    """Sampling inside is a function of the seed, and the generators outside are left as they were."""
    import torch

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def quiet_without_a_terminal() -> None:
    """transformers' own bars ("Loading weights") are of no use in a log file."""
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
