"""One rule says where a text ends, in training, evaluation, search and export: all short runs of signs, by property."""

import itertools
import string

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_modeling import small_model, write_tower

from tvilfm_plugin.data.paired import collate_pairs
from tvilfm_plugin.data.tokenizer import CONTEXT_LENGTH, END, START, end_of_text, open_clip_tokenizer, tokenize
from tvilfm_plugin.evaluation.features import encode_texts
from tvilfm_plugin.export.graphs import model_graphs, to_onnx
from tvilfm_plugin.export.tokenizer_file import tokenizer_file
from tvilfm_plugin.runtime.tokens import Tokens

SIGNS = string.punctuation + "€£§¿¡…–“„`´ "
PARTS = st.one_of(
    st.text(st.sampled_from(SIGNS), min_size=1, max_size=3),
    st.sampled_from(
        [
            "a man",
            "(tall)",
            "&amp;",
            "&lt;b&gt;",
            "running",
            "nan",
            "🧥",
            "é",
            "ﬀ",
            "ǅ",
            "한국어",
            "\u202e",
            "\u0301",
            "\ufeff",
            "&#x1F9E5;",
            "&nbsp;",
            "👩🏽‍🚀",
            "红色外套",
            "معطف",
            "<|endoftext|>",
            "word " * 90,
        ]
    ),
)
TEXTS = st.lists(PARTS, min_size=1, max_size=4).map("".join)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    file, made = tmp_path_factory.mktemp("tokens") / "tokenizer.json", tokenizer_file()
    file.write_text(made.content, encoding="utf-8")
    return Tokens(file, made.facts)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model("TVILFM", write_tower(tmp_path_factory.mktemp("tower"))).eval()


@pytest.fixture(scope="module")
def graph(model):
    """The text graph of an export."""
    content = to_onnx(model_graphs(model, (48, 24), flip=False)["text"])
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def literal_end(text: str) -> int:
    """Start id, the ids, end id; too long a text ends at the last place."""
    ids = open_clip_tokenizer().encode(text)
    before = ids.index(END) if END in ids else len(ids)
    return min(before + 1, CONTEXT_LENGTH - 1)


@pytest.mark.parametrize("length", [2, 3])
def test_all_runs_of_signs(runtime, length):
    runs = ["".join(run) for run in itertools.product(SIGNS, repeat=length)]
    texts = ["a man " + "x ".join(runs[start : start + 6]) + "x" for start in range(0, len(runs), 6)]
    tokens = tokenize(texts)
    ends = end_of_text(tokens).tolist()
    inside = [int(row[:end].min()) for row, end in zip(tokens, ends, strict=True)]
    assert 0 in inside, "the id 0 stands inside some texts: this is what the rule is about"
    assert max(ends) < CONTEXT_LENGTH - 1, "no text is cut"
    assert ends == [literal_end(text) for text in texts]
    ours = runtime(texts)
    assert np.array_equal(ours, tokens[:, : ours.shape[1]].numpy()) and not tokens[:, ours.shape[1] :].any()


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=12))
def test_every_place_agrees(runtime, model, graph, texts):
    tokens = tokenize(texts)
    ends = end_of_text(tokens)
    assert ends.tolist() == [literal_end(text) for text in texts]
    assert ends.tolist() == model.text.end_of_text(tokens).tolist()
    ours = runtime(texts)
    assert np.array_equal(ours, tokens[:, : ours.shape[1]].numpy()) and not tokens[:, ours.shape[1] :].any()
    batch = collate_pairs([{"rgb_tokens": row, "ir_tokens": row} for row in tokens])
    assert torch.equal(end_of_text(batch["rgb_tokens"]), ends) and batch["rgb_tokens"].shape[1] == ends.max() + 1
    together = encode_texts(model, texts, tokenize)
    alone = torch.cat([model.encode_text(row[None, : end + 1]) for row, end in zip(tokens, ends.tolist(), strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    exported = torch.from_numpy(graph.run(["raw"], {"tokens": ours})[0])
    torch.testing.assert_close(exported, together, rtol=1e-4, atol=1e-4)


def test_different_texts_stay_different(model):
    one, two = encode_texts(model, ["a man in a red jacket !(tall)", "a woman with a blue skirt!(running)"], tokenize)
    assert (one - two).abs().max() > 1e-3


def test_a_row_without_an_end_is_refused(model):
    row = torch.tensor([[START, 320, 786, 0, 0]])
    for rule in (end_of_text, model.text.end_of_text):
        with pytest.raises(ValueError, match=r"Row 0 of 1 has no end-of-text id \(49407\)"):
            rule(row)
