"""Aligning a text tower on synthetic people: learns, names CLIP's keys, repeats itself, keeps away from the benchmark."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.modeling.text_encoder import build_text_encoder
from tvilfm_plugin.synthetic import text_alignment
from tvilfm_plugin.synthetic.strangers import draw_strangers
from tvilfm_plugin.synthetic.text_alignment import AlignmentSpec, align_text, contrastive_loss

ARCH = {
    "embed_dim": 16,
    "quick_gelu": True,
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def small(folder: Path, **changes: object) -> AlignmentSpec:
    arch = folder / "arch.json"
    arch.write_text(json.dumps(ARCH))
    defaults = {"people": 12, "held_out": 6, "images": 2, "height": 32, "steps": 3, "batch_size": 8}
    return AlignmentSpec(str(arch), **{**defaults, **changes})


def test_weights_are_a_text_tower_in_clips_names(tmp_path: Path) -> None:
    spec = small(tmp_path)
    result = align_text(spec, tmp_path / "text.pt", progress=False)
    state = torch.load(tmp_path / "text.pt", weights_only=True)
    start = {"token_embedding.weight", "positional_embedding", "text_projection", "ln_final.weight", "ln_final.bias"}
    assert start | {"logit_scale", "transformer.resblocks.0.mlp.c_fc.weight"} <= set(state)
    assert state["token_embedding.weight"].shape == (49408, 16)
    encoder = build_text_encoder(spec.arch, str(tmp_path / "text.pt"), 16)
    assert encoder(tokenize(["a man with a red t-shirt."])).isfinite().all()
    assert result.people == 6 and result.chance == 1 / 6 and 0 <= result.person <= result.colours <= 1


def test_same_spec_same_weights_and_no_second_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small(tmp_path)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = align_text(spec, tmp_path / "a.pt", progress=False)
    assert torch.equal(before, torch.get_rng_state())  # the caller's randomness is left alone
    align_text(spec, tmp_path / "b.pt", progress=False)
    a, b = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    monkeypatch.setattr(text_alignment, "_train", lambda *_: pytest.fail("trained again"))
    assert align_text(spec, tmp_path / "a.pt", progress=False) == first


def test_another_spec_trains_anew_and_foreign_files_are_refused(tmp_path: Path) -> None:
    align_text(small(tmp_path), tmp_path / "a.pt", progress=False)
    old = (tmp_path / "a.pt").read_bytes()
    align_text(small(tmp_path, seed=8), tmp_path / "a.pt", progress=False)
    assert (tmp_path / "a.pt").read_bytes() != old
    (tmp_path / "mine.pt").write_bytes(b"somebody's weights")
    with pytest.raises(FileExistsError, match="not written by this tool"):
        align_text(small(tmp_path), tmp_path / "mine.pt", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.pt", "arch.json", "mine.pt"]


def test_only_words_that_occur_are_trained(tmp_path: Path) -> None:
    spec = small(tmp_path)
    learners, _ = draw_strangers(spec.people, spec.held_out, spec.seed)
    album = text_alignment._album(learners, spec, "learn", 1, False)
    assert album.pictures.shape == (24, 3, 32, 16) and album.tokens.shape == (24, 4, 77)
    weights = []
    for steps in (0, 3):
        torch.manual_seed(0)
        weights.append(text_alignment._train(album, replace(spec, steps=steps), False)[0].token_embedding.weight)
    changed = (weights[0] != weights[1]).any(dim=1)
    assert set(torch.nonzero(changed).flatten().tolist()) <= set(album.tokens.unique().tolist())
    assert changed.sum() > 20


def test_order_by_length_changes_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = build_text_encoder(small(tmp_path).arch, "", 16)
    tokens = tokenize(["a man.", "a woman in a long red coat, paired with blue jeans.", "a girl with a bag.", "a boy."])
    assert torch.allclose(text_alignment._encode_by_length(tower, tokens), tower(tokens), atol=1e-6)


def test_contrastive_loss_equals_a_loop() -> None:
    torch.manual_seed(0)
    images, texts, log_scale = torch.randn(5, 8), torch.randn(5, 8), torch.tensor(1.5)
    total = 0.0
    for n in range(5):
        to_texts = [float(log_scale.exp() * F.cosine_similarity(images[n], texts[m], dim=0)) for m in range(5)]
        to_images = [float(log_scale.exp() * F.cosine_similarity(images[m], texts[n], dim=0)) for m in range(5)]
        for scores in (to_texts, to_images):
            total -= float(torch.tensor(scores).log_softmax(0)[n]) / 10
    assert float(contrastive_loss(images, texts, log_scale)) == pytest.approx(total, rel=1e-5)


def test_captions_come_nearer_to_their_pictures(tmp_path: Path) -> None:
    spec = small(tmp_path, people=12, images=1, steps=80, batch_size=12, lr=2e-3, wrong=0.0, missing=0.0)
    learners, _ = draw_strangers(spec.people, spec.held_out, spec.seed)
    album = text_alignment._album(learners, spec, "learn", 1, False)
    torch.manual_seed(0)
    tower, eye, scale = text_alignment._train(album, spec, False)
    with torch.no_grad():
        loss = contrastive_loss(eye(album.pictures), tower(album.tokens[:, 0]), scale)
    assert loss < 0.75 * torch.tensor(12.0).log()
