"""Any chat vision-language model that transformers' `AutoModelForImageTextToText` loads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tvilfm_plugin.captioning.attributes import caption_of, fields_for, parse_answer, question
from tvilfm_plugin.captioning.base import CAPTIONER_REGISTRY, Captioner, Description, seeded
from tvilfm_plugin.captioning.colour_filter import remove_colours
from tvilfm_plugin.captioning.weights import Weights
from tvilfm_plugin.modality import Modality

if TYPE_CHECKING:
    import torch
    from PIL import Image

_SENTENCE = {
    Modality.RGB: "Describe the clothes, hair, shoes and belongings of this person with their colours, in one sentence.",
    Modality.IR: "Describe the clothes, hair, shoes and belongings of this person in one sentence, without any colours.",
}


class _ChatCaptioner(Captioner):
    """Questions and answers with a chat model."""

    @classmethod
    def read(cls, weights: Weights, dtype: "torch.dtype") -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        processor = AutoProcessor.from_pretrained(weights.source, **weights.options)
        template = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
        if not template:
            raise ValueError(f"{weights.name} has no chat template, so it is no chat model. Captioner 'blip' or 'git' may fit.")
        # Generation continues on the right, so shorter questions are filled up on the left.
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        return AutoModelForImageTextToText.from_pretrained(weights.source, dtype=dtype, **weights.options), processor

    def prepare(self, image: "Image.Image") -> "Image.Image":
        return image

    def encode(self, turns: Sequence[Any], **options: Any) -> Any:
        """Tokens and pixels of some conversations."""
        return self.processor.apply_chat_template(
            turns, tokenize=True, return_dict=True, processor_kwargs={"padding": True, "return_tensors": "pt"}, **options
        )

    def ask(self, images: Sequence["Image.Image"], questions: Sequence[str], seed: int) -> list[str]:
        """The model's answers, one question about each image."""
        import torch

        turns = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": asked}]}]
            for image, asked in zip(images, questions, strict=True)
        ]
        inputs = self.encode(turns, add_generation_prompt=True).to(self.model.device, self.model.dtype)
        with torch.inference_mode(), seeded(seed, self.model.device):
            written = self.model.generate(
                **inputs, pad_token_id=self.processor.tokenizer.pad_token_id, **self.decoding.arguments()
            )
        answers = self.processor.tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [" ".join(answer.split()) for answer in answers]


@CAPTIONER_REGISTRY.register("chat")
class ChatCaptioner(_ChatCaptioner):
    """Asks for one sentence; colours are taken out of what is said about infrared images."""

    def describe(self, prepared: Sequence["Image.Image"], seed: int) -> list[Description]:
        asked = self.prompt or _SENTENCE[self.modality]
        answers = self.ask(prepared, [asked] * len(prepared), seed)
        if self.modality is Modality.IR:
            answers = [remove_colours(answer) for answer in answers]
        return [Description(answer) if answer else Description("", error="empty answer") for answer in answers]


@CAPTIONER_REGISTRY.register("attributes")
class AttributeCaptioner(_ChatCaptioner):
    """Progressive attributes: two questions for JSON, checked, and a caption filled from what was accepted."""

    retries: ClassVar[int] = 2

    def describe(self, prepared: Sequence["Image.Image"], seed: int) -> list[Description]:
        found, errors = self._ask_for_attributes(prepared, [None] * len(prepared), seed)
        usable = [n for n, attributes in enumerate(found) if attributes is not None]
        details, _ = self._ask_for_attributes([prepared[n] for n in usable], [found[n] for n in usable], seed + 1)
        described = []
        for attributes, error in zip(found, errors, strict=True):
            described.append(Description("", error=f"no usable attributes: {error}") if attributes is None else None)
        for n, more in zip(usable, details, strict=True):
            # Details are a bonus: without them the caption names what there is.
            everything = {**(found[n] or {}), **(more or {})}
            described[n] = Description(caption_of(everything), everything)
        return [description for description in described if description is not None]

    def _ask_for_attributes(
        self, images: Sequence["Image.Image"], known: Sequence[dict[str, str] | None], seed: int
    ) -> tuple[list[dict[str, str] | None], list[str]]:
        """Attributes of each image, None where every answer was unusable, and why."""
        fields = [fields_for(self.modality, one) for one in known]
        found: list[dict[str, str] | None] = [None] * len(images)
        errors = [""] * len(images)
        # No detail is left to ask of an image on which nothing was found.
        waiting = [n for n in range(len(images)) if fields[n]]
        # A greedy model answers differently once, to the reminder, and then no more.
        attempts = 1 + self.retries if self.decoding.temperature > 0 else 2
        for attempt in range(attempts):
            if not waiting:
                break
            reminder = "\nYour last answer was not one JSON object with these keys. Answer with the JSON object only."
            asked = [question(fields[n], self.modality) + (reminder if attempt else "") for n in waiting]
            answers = self.ask([images[n] for n in waiting], asked, seed + 2 * attempt)
            still = []
            for n, answer in zip(waiting, answers, strict=True):
                try:
                    found[n] = parse_answer(answer, fields[n], self.modality)
                except ValueError as error:
                    errors[n] = str(error)
                    still.append(n)
            waiting = still
        return found, errors
