import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tvilfm_plugin.data.tokenizer import (
    CONTEXT_LENGTH,
    END,
    START,
    TokenStore,
    decode,
    forget_words,
    open_clip_tokenizer,
    tokenize,
)

GOLDENS = Path(__file__).parents[1] / "goldens"
GOLDEN = json.loads((GOLDENS / "tokenizer.json").read_text())


def padded(ids):
    return ids + [0] * (CONTEXT_LENGTH - len(ids))


@pytest.mark.parametrize("case", [c for c in GOLDEN["edge"] if "ids" in c], ids=lambda c: c["text"][:16])
def test_edge_cases_equal_the_goldens(case):
    assert tokenize([case["text"]])[0].tolist() == padded(case["ids"])


def test_a_word_the_released_tokenizer_lost_is_encoded_as_in_clip():
    text = next(case["text"] for case in GOLDEN["edge"] if "error" in case)
    assert tokenize([text])[0].tolist() == padded([START, 1982, 269, 49405, END])


@pytest.mark.parametrize("kind", ["description", "aug"])
def test_released_captions_survive_decoding(kind):
    """The texts may not be shipped, but their ids determine them up to spaces: decoded and encoded they are the same."""
    ids = np.load(GOLDENS / "tokenizer.npz")[kind]
    assert torch.equal(tokenize([decode(row.tolist()) for row in ids]), torch.from_numpy(ids))
    assert len(GOLDEN[f"{kind}_sha256"]) == len(ids)


@pytest.mark.parametrize("text", ["a man in a blue coat .", "two bags"])
def test_hashes_would_recognise_released_texts(text):
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest not in GOLDEN["description_sha256"] + GOLDEN["aug_sha256"]


def test_too_long_keeps_the_end():
    row = tokenize(["red " * 200])[0].tolist()
    assert len(row) == CONTEXT_LENGTH and row[0] == START and row[-1] == END and row[1] == row[75]


def test_exactly_full_is_not_cut():
    row = tokenize(["red " * 75])[0]
    assert row[-1] == END and torch.equal(row, tokenize(["red " * 76])[0])
    assert tokenize(["red " * 74])[0].tolist()[-2:] == [END, 0]


def test_exclamation_mark_is_id_zero_inside_a_text():
    row = tokenize(["#@!$"])[0].tolist()
    assert 0 in row[: row.index(END)]


def test_open_clips_own_spelling_of_special_tokens_is_plain_text():
    assert START not in tokenize(["x <start_of_text>"])[0, 1:].tolist()
    assert tokenize(["x <|startoftext|> <|MASK|>"])[0, :5].tolist() == [START, 343, START, 49405, END]


def test_no_texts():
    assert tokenize([]).shape == (0, CONTEXT_LENGTH)


def test_single_string_is_refused():
    with pytest.raises(TypeError, match=r"pass \[text\]"):
        tokenize("a man")


def test_equals_the_library():
    from open_clip.tokenizer import SimpleTokenizer

    words = ["a", "Woman's", "t - shirt", "100%", "naïve", "&amp;lt;", "walking", "co-ordinated", "\tblue\n", "ﬁne", "ÿþ"]
    rng = np.random.RandomState(0)
    texts = [" ".join(rng.choice(words, rng.randint(1, 60))) for _ in range(50)]
    assert torch.equal(tokenize(texts), SimpleTokenizer()(texts, context_length=CONTEXT_LENGTH))


def test_store_equals_tokenize_and_pickles():
    texts = ["a red coat", "a blue coat", "a red coat", ""]
    store = TokenStore(texts)
    assert len(store) == 3 and "a red coat" in store and "green" not in store
    for copy in (store, pickle.loads(pickle.dumps(store))):
        rows = torch.stack([copy[text] for text in texts])
        assert rows.dtype == torch.int64 and torch.equal(rows, tokenize(texts))
    store["a red coat"].zero_()
    assert torch.equal(store["a red coat"], tokenize(["a red coat"])[0]), "rows are copies"


def test_store_tokenises_each_text_once():
    seen = []
    TokenStore(["x", "y", "x"], tokens=lambda texts: seen.extend(texts) or tokenize(texts))
    assert seen == ["x", "y"]


def test_store_names_a_missing_text():
    with pytest.raises(KeyError, match="'green'.*1 texts"):
        TokenStore(["red"])["green"]


def test_importing_and_tokenising_does_not_import_open_clip():
    code = (
        "import sys; from tvilfm_plugin.data.tokenizer import tokenize; assert 'ftfy' not in sys.modules;"
        "tokenize(['x']); assert 'open_clip' not in sys.modules and 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_words_are_forgotten_on_demand():
    ids = tokenize(["a zorgblat man <|mask|>"])
    assert any("zorgblat" in word for word in open_clip_tokenizer().cache)
    forget_words()
    assert not any("zorgblat" in word for word in open_clip_tokenizer().cache)
    assert torch.equal(tokenize(["a zorgblat man <|mask|>"]), ids)
