"""Say captions in other words, with a local language model or a server, and keep only what says nothing new."""

import logging
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

from tvilfm_plugin.captioning.base import Decoding, quiet_without_a_terminal, seeded
from tvilfm_plugin.captioning.colour_filter import remove_colours
from tvilfm_plugin.captioning.engine import Job, Shard, begin, run_jobs, write_failures
from tvilfm_plugin.captioning.guards import clean_answer, objection, reminder
from tvilfm_plugin.captioning.rows import Row, RowStore, write_json
from tvilfm_plugin.captioning.sentence_encoder import SentenceFence
from tvilfm_plugin.captioning.sources import SourceSet
from tvilfm_plugin.captioning.weights import find_weights
from tvilfm_plugin.modality import Modality

logger = logging.getLogger(__name__)

DEFAULT_DECODING = Decoding(max_new_tokens=160, temperature=0.7)
"""The paper samples rephrases at temperature 0.7."""

_INSTRUCTION = {
    "paper": " Rephrase the person's description above using similar words. Answer:",
    # The released script glues the instruction to the caption and begins it with a small letter.
    "released": "rephrase the person's description above using similar words. Answer:",
}
INSTRUCTIONS = tuple(_INSTRUCTION)

# The text that Vicuna v1.1 and v1.5 were trained with; their tokenizers bring no chat template.
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions. USER: {} ASSISTANT:"
)


def instruct(caption: str, style: str = "paper", hint: str = "") -> str:
    """The caption and the paper's instruction, in which a further attempt's hint stands before the last word."""
    if style not in _INSTRUCTION:
        raise ValueError(f"Unknown instruction {style!r}; choices are {', '.join(INSTRUCTIONS)}.")
    asked = _INSTRUCTION[style]
    return caption + (f"{asked.removesuffix('Answer:')}{hint} Answer:" if hint else asked)


def vicuna_prompt(message: str) -> str:
    """One user's message in the text form that Vicuna expects."""
    return _VICUNA.format(message)


class Rephraser(ABC):
    """Answers messages."""

    decoding: Decoding

    @abstractmethod
    def answer(self, messages: Sequence[str], seed: int) -> list[str | Exception]:
        """An answer for each message, or what kept it from being answered."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What a reader must know to make the same text again."""


class LocalRephraser(Rephraser):
    """A causal language model of transformers, with its own "chat" template, Vicuna's text, or "auto" (chat if it has one)."""

    def __init__(
        self, model: Any, tokenizer: Any, *, decoding: Decoding = DEFAULT_DECODING, template: str = "auto", name: str = "",
        revision: str = "",
    ) -> None:  # fmt: skip
        if template not in ("auto", "chat", "vicuna"):
            raise ValueError(f"Unknown prompt template {template!r}; choices are auto, chat, vicuna.")
        if template == "chat" and not tokenizer.chat_template:
            raise ValueError(f"The tokenizer of {name or 'this model'} has no chat template; use template 'vicuna'.")
        self.model, self.tokenizer, self.decoding = model, tokenizer, decoding
        self.template = template if template != "auto" else "chat" if tokenizer.chat_template else "vicuna"
        self.name, self.revision = name, revision
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @classmethod
    def load(
        cls, name: str, *, device: str = "cpu", dtype: str = "float32", decoding: Decoding = DEFAULT_DECODING,
        template: str = "auto",
    ) -> "LocalRephraser":  # fmt: skip
        """Read model and tokenizer from a folder, from the hub, or from a GGUF file."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        weights = find_weights(name)
        quiet_without_a_terminal()
        try:
            tokenizer = AutoTokenizer.from_pretrained(weights.source, **weights.options)
            model = AutoModelForCausalLM.from_pretrained(weights.source, dtype=getattr(torch, dtype), **weights.options)
        except Exception as error:
            if "gguf_file" not in weights.options:
                raise
            # Many architectures and quantisations are beyond transformers; what it says of them has no common type.
            raise ValueError(
                f"transformers cannot read {name} ({error}). Serve it (llama.cpp: `llama-server -m {name}`) and give the "
                "address, --llm http://localhost:8080/v1."
            ) from error
        weights, placed = weights.checked(model), cast(Any, model).to(device).eval()
        return cls(
            placed, tokenizer, decoding=decoding, template=template, name=weights.name,
            revision=weights.revision,
        )  # fmt: skip

    def answer(self, messages: Sequence[str], seed: int) -> list[str | Exception]:
        import torch

        if self.template == "chat":
            turns = [[{"role": "user", "content": message}] for message in messages]
            encoded = self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
            )
        else:
            encoded = self.tokenizer([vicuna_prompt(m) for m in messages], return_tensors="pt", padding=True)
        encoded = {k: v.to(self.model.device) for k, v in encoded.items() if k in ("input_ids", "attention_mask")}
        with torch.inference_mode(), seeded(seed, self.model.device):
            written = self.model.generate(**encoded, pad_token_id=self.tokenizer.pad_token_id, **self.decoding.arguments())
        return list(self.tokenizer.batch_decode(written[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True))

    def provenance(self) -> dict[str, Any]:
        dtype = str(self.model.dtype).removeprefix("torch.")
        made = {"model": self.name, "revision": self.revision, "template": self.template, "dtype": dtype}
        return {"rephraser": type(self).__name__, **made, **asdict(self.decoding)}


class RephraseOutcome(NamedTuple):
    """What a run did.

    Attributes:
        made: rephrases of this process in this run, empty ones included.
        done: rows of all processes and runs.
        empty: rows whose every attempt was refused; their rephrase is "".
        refused: reason -> refused attempts, over all rows.
        failed: keys without an answer -> why.
        files: what was merged; empty while there is still something to do.
    """

    made: int
    done: int
    empty: int
    refused: dict[str, int]
    failed: dict[str, str]
    files: list[Path]

    @classmethod
    def of(cls, made: int, good: Sequence[Row], failed: dict[str, str], files: list[Path]) -> "RephraseOutcome":
        """From the rows without an error."""
        refused = Counter(reason.split(":")[0] for row in good for reason in row.get("refused", ()))
        empty = sum(not row["rephrase"] for row in good)
        return cls(made, len(good), empty, dict(refused.most_common()), failed, files)


def rephrase_captions(
    rephraser: Rephraser,
    images: SourceSet,
    texts: Mapping[str, str],
    out: Path,
    *,
    colour_filter: str = "",
    instruction: str = "paper",
    retries: int = 3,
    batch_size: int = 16,
    shard: Shard | None = None,
    restart: bool = False,
    limit: int = 0,
    fence: SentenceFence | None = None,
) -> RephraseOutcome:
    """Rephrase captions into a `caption_llm_dict_*` that the loaders read.

    Rows go to `out/rows/rephrases`. A rephrase that the guards refuse is asked for again; after the last attempt it is left
    empty, which the loaders take as "none", and counted.

    Args:
        images: whose captions are rephrased (the paper: training images).
        texts: caption by key, of all images that the file shall name.
        colour_filter: "released" or "strict" takes colours out of infrared rephrases before the guards look; "" leaves
            them to the guards.
        retries: attempts after the first one.
        fence: refuses rephrases that the guards accept and a sentence encoder does not.
    """
    shard = shard or Shard.from_environment()
    if colour_filter and images.modality is not Modality.IR:
        raise ValueError("A colour filter is for infrared texts; visible captions need their colours.")
    how = {"instruction": instruction, "colour_filter": colour_filter, "retries": retries}
    how |= fence.provenance if fence else {}
    store = RowStore(out / "rows" / "rephrases", {**rephraser.provenance(), **how}, result="rephrase", may_be_empty=True)
    target = out / f"caption_llm_dict_{images.text_name}.json"
    begin(store, shard, restart, [target])
    keys = [source.key for source in images.sources if source.key in texts]
    if not keys:
        raise ValueError(f"None of the {len(images.sources)} images has a caption among the {len(texts)} given texts.")

    work = lambda jobs: _rephrase_batch(rephraser, jobs, images.modality, colour_filter, instruction, retries, fence)
    # A row is about the caption that it rephrases; a new caption needs a new one.
    holds = lambda row: bool(row.get("caption") == texts.get(row["image"]))
    made = run_jobs(
        keys, store, lambda key: texts[key], work, batch_size=batch_size, workers=1, shard=shard, limit=limit,
        label=f"rephrasing {images.modality.value}", holds=holds,
    )  # fmt: skip
    rows = store.read(holds)
    failed = {key: str(rows[key]["error"]) for key in keys if "error" in rows.get(key, {})}
    good = [rows[key] for key in keys if "error" not in rows.get(key, {"error": ""})]
    files: list[Path] = []
    if len(good) + len(failed) == len(keys):
        rephrases = {key: rows.get(key, {}).get("rephrase", "") for key in texts}
        content = {key: {"description": text, "aug_description": rephrases[key]} for key, text in texts.items()}
        files = [write_json(target, content), write_failures(out / "rows" / "rephrases_failed.txt", failed)]
    return RephraseOutcome.of(made, good, failed, files)


def _rephrase_batch(
    rephraser: Rephraser, jobs: Sequence[Job], modality: Modality, colour_filter: str, instruction: str, retries: int,
    fence: SentenceFence | None,
) -> list[Row]:  # fmt: skip
    rows: list[Row] = [{"image": j.key, "caption": j.prepared, "rephrase": "", "refused": []} for j in jobs]
    waiting = list(range(len(jobs)))
    for attempt in range(1 + retries):
        if not waiting:
            break
        seed = zlib.crc32(f"{rephraser.decoding.seed}/{jobs[waiting[0]].key}/{attempt}".encode())
        asked = [instruct(jobs[n].prepared, instruction, reminder(rows[n]["refused"])) for n in waiting]
        answers = rephraser.answer(asked, seed)
        still = []
        for n, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, Exception):
                rows[n] = {"image": jobs[n].key, "error": str(answer)}
                continue
            text = clean_answer(answer)
            text = remove_colours(text, colour_filter) if colour_filter else text
            reason = objection(jobs[n].prepared, text, modality)
            if fence and not reason:
                reason = fence.objection(jobs[n].prepared, text)
            if reason:
                rows[n]["refused"].append(reason)
                still.append(n)
            else:
                rows[n]["rephrase"] = text
        # A greedy model gives the same answer to the same question.
        waiting = still if rephraser.decoding.temperature > 0 else []
    return rows
