"""Progressive attributes: questions, checked answers, templates; and a small LLaVA that really answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tvilfm_plugin.captioning.attributes import FIRST, caption_of, fields_for, parse_answer, question
from tvilfm_plugin.captioning.captioner import Captioner, Decoding, load_captioner
from tvilfm_plugin.captioning.chat_vlm import AttributeCaptioner
from tvilfm_plugin.captioning.colour_filter import has_colour
from tvilfm_plugin.captioning.weights import Weights
from tvilfm_plugin.modality import Modality

RED, DARK = Image.new("RGB", (24, 48), (200, 20, 20)), Image.new("RGB", (24, 48), (20, 20, 30))
PEOPLE = {
    "red": ({"gender": "woman", "upper": "coat", "lower": "skirt"}, {"upper_colour": "red", "lower_length": "knee-length"}),
    "dark": ({"gender": "man", "upper": "hoodie", "lower": "jeans"}, {"upper_colour": "black", "upper_pattern": "plain"}),
}


class Answering(AttributeCaptioner):
    """Gives prepared answers in place of a model's."""

    def __init__(self, answers: Sequence[str], modality: Modality = Modality.RGB, temperature: float = 0.0) -> None:
        self.modality, self.decoding = modality, Decoding(temperature=temperature)
        self.answers, self.asked = list(answers), []  # type: ignore[var-annotated]

    def ask(self, images: Sequence[Any], questions: Sequence[str], seed: int) -> list[str]:
        self.asked += questions
        given, self.answers = self.answers[: len(questions)], self.answers[len(questions) :]
        return given


def test_infrared_is_never_asked_for_colours() -> None:
    found = {"upper": "jacket", "lower": "trousers", "shoes": "boots", "bag": "backpack"}
    names = {field.name for field in fields_for(Modality.IR, found)}
    assert names and not any("colour" in name for name in names)
    asked = question(fields_for(Modality.IR, found), Modality.IR)
    assert "infrared" in asked and "colour of" not in asked
    assert any("colour" in field.name for field in fields_for(Modality.RGB, found))
    less = {field.name for field in fields_for(Modality.RGB, {"upper": "jacket", "bag": "none"})}
    assert not any(name.startswith(("bag", "lower", "shoes")) for name in less)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"gender": "man", "upper": "T-Shirt."}', {"gender": "man", "upper": "t-shirt"}),
        ('Sure! ```json\n{"gender": "Woman", "bag": "unknown"}\n``` Hope this helps {really}', {"gender": "woman"}),
        ('{broken {"gender": "robot", "upper": "a very long description of a jacket", "shoes": "boots"}', {"shoes": "boots"}),
        ('{"gender": 3, "upper": ["x"], "lower": "jeans<script>", "bag": "none"}', {"bag": "none"}),
    ],
)
def test_answers_are_checked(answer: str, expected: dict[str, str]) -> None:
    assert parse_answer(answer, FIRST, Modality.RGB) == expected


@pytest.mark.parametrize("answer", ["a man in a hat", "[1, 2]", '{"colour": "red"}', '{"gender": ["man"]}', ""])
def test_unusable_answers_are_errors(answer: str) -> None:
    with pytest.raises(ValueError):
        parse_answer(answer, FIRST, Modality.RGB)


def test_infrared_values_lose_their_colours() -> None:
    assert parse_answer('{"upper": "dark blue jacket", "shoes": "white"}', FIRST, Modality.IR) == {"upper": "jacket"}


@pytest.mark.parametrize(
    ("attributes", "caption"),
    [
        ({}, "a person."),
        ({"gender": "woman", "hair_length": "long", "hair_colour": "blonde"}, "a woman with long blonde hair."),
        ({"hair_length": "none", "headwear": "cap"}, "a person, wearing a cap."),
        (
            {"gender": "man", "upper": "jacket", "upper_colour": "orange", "upper_pattern": "plain", "lower": "trousers",
             "lower_colour": "grey", "shoes_colour": "white", "bag": "backpack", "bag_place": "on the back"},
            "a man, wearing an orange jacket, grey trousers and white shoes, carrying a backpack on the back.",
        ),
        ({"upper": "dress", "upper_pattern": "striped", "lower": "none"}, "a person, wearing a striped dress."),
    ],
)  # fmt: skip
def test_caption_template(attributes: dict[str, str], caption: str) -> None:
    assert caption_of(attributes) == caption


def test_two_questions_make_a_caption_and_bad_answers_are_asked_again() -> None:
    first, second = ({"gender": "man", "upper": "coat", "lower": "jeans"}, {"upper_colour": "green"})
    captioner = Answering([json.dumps(first), "no idea", json.dumps(first), json.dumps(second), "still no", "no"])
    said = captioner.describe([RED, DARK], 0)
    assert said[0].text == "a man, wearing a green coat and jeans." and said[1].text == "a man, wearing a coat and jeans."
    assert said[0].attributes == {**first, **second} and "last answer was not" in captioner.asked[2]
    failed = Answering(["no"] * 9).describe([RED], 0)[0]
    assert failed.text == "" and "no JSON object" in failed.error


# --- a model ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of 200,000 parameters that learned what PEOPLE wear."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    cases = []
    for image, (first, second) in zip((RED, DARK), PEOPLE.values(), strict=True):
        cases.append((image, question(FIRST, Modality.RGB), json.dumps(first)))
        cases.append((image, question(fields_for(Modality.RGB, first), Modality.RGB), json.dumps(second)))
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=specials, initial_alphabet=alphabet)
    core.train_from_iterator([text for _, *texts in cases for text in texts], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}"
        "{% endif %}{% endfor %}</s>{% endfor %}"
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False), tokenizer, patch_size=16,
        vision_feature_select_strategy="full", num_additional_image_tokens=1, chat_template=template, image_token="<image>",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
        )
        text = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        config = LlavaConfig(
            vision_config=vision, text_config=text, image_token_index=3, vision_feature_select_strategy="full",
            vision_feature_layer=-1,
        )  # fmt: skip
        model = LlavaForConditionalGeneration(config)
        folder = tmp_path_factory.mktemp("llava")
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        captioner = load_captioner("attributes", str(folder))
        teach(captioner, cases)
        captioner.model.save_pretrained(folder)
    return folder


def teach(captioner: Captioner, cases: Sequence[tuple[Image.Image, str, str]]) -> None:
    def turn(role: str, *content: dict[str, Any]) -> dict[str, Any]:
        return {"role": role, "content": list(content)}

    turns = [
        [turn("user", {"type": "image", "image": image}, {"type": "text", "text": asked}),
         turn("assistant", {"type": "text", "text": answer})]
        for image, asked, answer in cases
    ]  # fmt: skip
    batch = captioner.encode(turns)  # type: ignore[attr-defined]
    labels = torch.full_like(batch["input_ids"], -100)
    for n, (_, _, answer) in enumerate(cases):
        length = len(captioner.processor.tokenizer(answer, add_special_tokens=False).input_ids) + 1  # and </s>
        labels[n, -length:] = batch["input_ids"][n, -length:]
    model = captioner.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(60):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    model.eval()


def test_a_chat_model_describes_what_it_sees(llava: Path) -> None:
    captioner = load_captioner("attributes", str(llava), decoding=Decoding(max_new_tokens=60))
    said = captioner.describe([captioner.prepare(image) for image in (RED, DARK)], 0)
    assert [description.text for description in said] == [
        "a woman, wearing a red coat and a knee-length skirt.",
        "a man, wearing a black hoodie and jeans.",
    ]
    assert captioner.provenance()["revision"].startswith("sha256:")
    infrared = load_captioner("attributes", str(llava), modality=Modality.IR, decoding=Decoding(max_new_tokens=60))
    for description in infrared.describe([RED, DARK], 0):
        assert not has_colour(description.text)


def test_one_sentence_of_a_chat_model_on_infrared_has_no_colour(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = load_captioner("chat", str(llava), modality=Modality.IR, decoding=Decoding(max_new_tokens=60))
    monkeypatch.setattr(captioner, "ask", lambda images, asked, seed: ["A man in a light blue coat.", "black"])
    said = captioner.describe([RED, DARK], 0)
    assert said[0].text == "A man in a coat." and said[1].error == "empty answer"


def test_models_without_a_chat_template_are_refused(llava: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "plain"
    shutil.copytree(llava, folder)
    for file in folder.glob("*chat_template*"):
        file.unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load_captioner("chat", str(folder))


def test_git_learns_and_describes(tmp_path: Path) -> None:
    from transformers import GitConfig, GitForCausalLM, GitProcessor

    from tvilfm_plugin.captioning.git import GitCaptioner
    from tvilfm_plugin.captioning.small_blip import build_small_blip

    texts = ["a woman in a red coat", "a man in a black hoodie"]
    blip = build_small_blip(texts, image_size=32, patch_size=16, width=32)
    tokenizer = blip.processor.tokenizer
    config = GitConfig(
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "image_size": 32, "patch_size": 16},
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.cls_token_id, eos_token_id=tokenizer.sep_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GitForCausalLM(config)
    GitProcessor(blip.processor.image_processor, tokenizer).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    captioner = load_captioner("git", str(tmp_path))
    assert isinstance(captioner, GitCaptioner)
    batch = captioner.training_batch([captioner.prepare(image) for image in (RED, DARK)], texts)
    optimizer = torch.optim.AdamW(captioner.model.train().parameters(), lr=5e-3)
    for _ in range(80):
        loss = captioner.model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    captioner.model.eval()
    said = captioner.describe([captioner.prepare(image) for image in (DARK, RED)], 0)
    assert [description.text for description in said] == texts[::-1]


def test_folder_hash_sees_the_weights(tmp_path: Path) -> None:
    from tvilfm_plugin.captioning.weights import find_weights

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = find_weights(str(tmp_path))
    assert isinstance(first, Weights) and first.name == tmp_path.name
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert find_weights(str(tmp_path)).revision != first.revision
