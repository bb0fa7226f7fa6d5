import hashlib
import json

import golden_inputs as inputs
import numpy as np
import open_clip
import pytest
import torch
from oracles_modeling import TINY_TOWER, clip_text_by_hand, golden, random_encoder, write_tower
from safetensors.torch import save_file
from torch import nn

from tvilfm_plugin.files import weights
from tvilfm_plugin.modeling.text_encoder import TextEncoder, build_text_encoder, resize_projection


@pytest.fixture
def tower(tmp_path):
    return write_tower(tmp_path)


def tokens(n=4, seed=3):
    return torch.from_numpy(inputs.tokens(seed, n))


def clip_state(encoder):
    """A CLIP state dict around the encoder's weights, with an image tower."""
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    return state | {"visual.conv1.weight": torch.zeros(2, 3), "logit_scale": torch.tensor(2.6)}


# --- projection -------------------------------------------------------------------------------------------------------


def test_golden_projection():
    projection, other = (torch.from_numpy(a) for a in inputs.prj_input())
    assert np.abs(resize_projection(projection, 32).numpy() - golden("resize_prj")["x2"]).max() < 1e-6
    stretched = resize_projection(other, 16)
    for column in range(16):  # output column c looks at input position (c + 1/2) * 10/16 - 1/2
        position = min(max((column + 0.5) * 10 / 16 - 0.5, 0), 9)
        left = int(position)
        right = min(left + 1, 9)
        expected = other[:, left] * (1 - position + left) + other[:, right] * (position - left)
        assert torch.allclose(stretched[:, column], expected, atol=1e-6)


def test_a_half_precision_projection_is_rounded_again():
    projection = torch.from_numpy(inputs.prj_input()[0]).half()
    assert resize_projection(projection, 32).dtype is torch.float16
    assert resize_projection(projection, 16) is projection


# --- forward ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_equals_open_clip_and_the_twin(tower):
    encoder, ids = random_encoder(tower), tokens()
    clip = open_clip.model._build_text_tower(24, TINY_TOWER["text_cfg"], quick_gelu=True).eval()
    clip.load_state_dict(encoder.state_dict())
    assert torch.allclose(encoder(ids), clip(ids), rtol=1e-5, atol=1e-5)
    state = {f"text.{name}": value for name, value in encoder.state_dict().items()}
    assert torch.allclose(encoder(ids[:1])[0], clip_text_by_hand(state, ids[0], heads=2), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_trimming_is_exact(tower):
    encoder, ids = random_encoder(tower), tokens()
    length = int((ids == 49407).int().argmax(dim=1).max()) + 1
    seen = []
    encoder.pack = False  # packed, the transformer sees no batch
    encoder.transformer.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[1]))
    full = encoder(ids)
    assert torch.allclose(encoder(ids[:, :length]), full, atol=1e-6)
    assert torch.allclose(encoder(ids[:, : length + 3]), full, atol=1e-6)  # trimmed by someone else: taken as it is
    assert seen == [length, length, length + 3]
    for n in range(len(ids)):
        assert torch.allclose(encoder(ids[n : n + 1])[0], full[n], atol=1e-5)


@torch.no_grad()
def test_the_first_end_of_text_counts(tower):
    encoder, ids = random_encoder(tower), tokens(1)
    end = int((ids[0] == 49407).int().argmax())
    padded = ids.clone()
    padded[0, end + 1 :] = 49407  # other tokenizers pad with the end-of-text token
    assert torch.allclose(encoder(padded), encoder(ids), atol=1e-6)


def test_too_many_tokens(tower):
    ids = torch.full((1, 78), 400)
    ids[0, 77] = 49407
    with pytest.raises(ValueError, match="78 tokens.*77"):
        random_encoder(tower)(ids)


# --- architecture -----------------------------------------------------------------------------------------------------


def test_random_start_says_so_and_has_the_visual_width(tower, caplog):
    encoder = build_text_encoder(tower, "", 40)
    assert encoder.dim == 40 and "starts at RANDOM" in caplog.text
    assert isinstance(encoder, TextEncoder) and all(p.requires_grad for p in encoder.parameters())


def test_architecture_mistakes(tmp_path):
    with pytest.raises(ValueError, match="neither an open_clip.*RN50-quickgelu"):
        build_text_encoder("RN5O-quickgelu", "", 8)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        build_text_encoder("nowhere.json", "", 8)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="no text_cfg"):
        build_text_encoder(str(tmp_path / "bad.json"), "", 8)
    for description, why in (
        ("{", "no valid JSON"),
        ({"text_cfg": 5}, "no text_cfg"),
        ({"text_cfg": {"width": 33, "heads": 2}}, "no text tower that open_clip can build"),
        ({"text_cfg": {"nope": 2}}, "no text tower that open_clip can build"),
        ({"text_cfg": {"vocab_size": 10, "width": 32, "heads": 2, "layers": 1}}, "for 10 tokens and 77 positions"),
        ({"text_cfg": {"context_length": 20, "width": 32, "heads": 2, "layers": 1}}, "for 49408 tokens and 20 positions"),
    ):
        with pytest.raises(ValueError, match=f"MODEL.TEXT.ARCH .*{why}"):
            build_text_encoder(description if isinstance(description, str) else json.dumps(description), "", 8)
    with pytest.raises(ValueError, match="not a CLIP text tower"):
        build_text_encoder("ViT-B-16-SigLIP", "", 8)
    with pytest.raises(ValueError, match="embed_cls True"):
        build_text_encoder("coca_ViT-B-32", "", 8)


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "ddp", "model", "safetensors", "custom_text", "compiled", "lightning", "folder"])
@torch.no_grad()
def test_forms_of_weights(tower, tmp_path, form):
    source, ids = random_encoder(tower), tokens()
    state, path = clip_state(source), tmp_path / "weights.pt"
    if form == "custom_text":
        state = {f"text.{n}": v for n, v in source.state_dict().items()} | {"visual.trunk": torch.zeros(1)}
    if form in ("safetensors", "folder"):
        path = tmp_path / "model.safetensors"
        save_file(state, path)
        if form == "folder":  # of a model, as an export writes it
            (tmp_path / "config.json").write_text("{}")
            path = tmp_path
    elif form == "ddp":
        torch.save({"state_dict": {f"module.{n}": v for n, v in state.items()}, "epoch": 3}, path)
    elif form == "compiled":
        torch.save({f"module._orig_mod.{n}": v for n, v in state.items()}, path)
    elif form == "lightning":
        torch.save({"state_dict": {f"model.{n}": v for n, v in state.items()}, "hyper_parameters": {"lr": 1}}, path)
    elif form == "model":
        torch.save({"model": {f"text.{n}": v for n, v in source.state_dict().items()} | {"heads.x": torch.zeros(1)}}, path)
    else:
        torch.save(state, path)
    encoder = build_text_encoder(tower, str(path), 24).eval()
    assert torch.equal(encoder(ids), source(ids))
    wide = build_text_encoder(tower, str(path), 48)
    assert torch.equal(wide.text_projection, resize_projection(source.text_projection, 48))
    assert all(p.requires_grad and p.device.type == "cpu" and p.is_leaf for p in wide.parameters())


@pytest.mark.parametrize("prefix", ["", "module.", "model.clip."])
@torch.no_grad()
def test_transformers_clip_gives_the_same_features(tower, tmp_path, prefix):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    text = TINY_TOWER["text_cfg"]
    torch.manual_seed(0)
    theirs = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=text["vocab_size"], hidden_size=text["width"], intermediate_size=4 * text["width"], projection_dim=24,
            num_hidden_layers=text["layers"], num_attention_heads=text["heads"], hidden_act="quick_gelu", eos_token_id=2,
        )
    ).eval()  # fmt: skip
    state = theirs.state_dict() | {"vision_model.embeddings.class_embedding": torch.ones(3), "logit_scale": torch.tensor(2.6)}
    torch.save({f"{prefix}{name}": value for name, value in state.items()}, tmp_path / "hf.bin")
    ids = tokens()
    ours = build_text_encoder(tower, str(tmp_path / "hf.bin"), 24).eval()
    assert torch.allclose(ours(ids), theirs(ids).text_embeds, atol=1e-5)


def test_half_precision_weights_become_float32(tower, tmp_path):
    torch.save({n: v.half() for n, v in clip_state(random_encoder(tower)).items()}, tmp_path / "w.pt")
    encoder = build_text_encoder(tower, str(tmp_path / "w.pt"), 48)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.text_projection, encoder.text_projection.half().float())


def test_weights_that_do_not_fit(tower, tmp_path, caplog):
    state, path = clip_state(random_encoder(tower)), tmp_path / "w.pth"
    missing = dict(state)
    del missing["ln_final.bias"], missing["transformer.resblocks.1.ln_2.weight"]
    missing["positional_embedding"] = torch.zeros(40, 16)
    torch.save(missing, path)
    said = r"(?s)resblocks.1.ln_2.weight.*ln_final.bias.*\(40, 16\) instead of \(77, 16\) positional_embedding"
    with pytest.raises(ValueError, match=said):
        build_text_encoder(tower, str(path), 24)
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="missing token_embedding.weight"):
        build_text_encoder(tower, str(path), 24)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds a list"):
        build_text_encoder(tower, str(path), 24)


def test_weights_that_do_not_exist(tower):
    with pytest.raises(FileNotFoundError, match="RN50.pt"):
        build_text_encoder(tower, "RN50.pt", 24)
    with pytest.raises(ValueError, match="openai, yfcc15m, cc12m"):
        build_text_encoder("RN50", "openais", 24)


class Clip(nn.Module):
    """What an archive holds: the encoder's names, and OpenAI's three numbers."""

    def __init__(self, encoder):
        super().__init__()
        for name, child in encoder.named_children():
            setattr(self, name, child)
        self.positional_embedding = encoder.positional_embedding
        self.text_projection = encoder.text_projection
        for name, value in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, tokens):
        return self.token_embedding(tokens) @ self.text_projection + self.positional_embedding[0, 0]


def test_torchscript_archives(tower, tmp_path, monkeypatch):
    """Only the published file is run; its weights bring QuickGELU with them, whatever the architecture says."""
    encoder, path = random_encoder(tower).half(), tmp_path / "RN50.pt"
    torch.jit.trace_module(Clip(encoder).float(), {"forward": tokens(1)}).half().save(str(path))
    with pytest.raises(ValueError, match=r"TorchScript archive.*not run.*state_dict"):
        build_text_encoder(tower, str(path), 24)

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(weights.OPENAI_ARCHIVES, digest, "test")
    gelu = tmp_path / "gelu.json"
    gelu.write_text(json.dumps(TINY_TOWER | {"quick_gelu": False}))
    loaded = build_text_encoder(str(gelu), str(path), 24)
    assert torch.equal(loaded.text_projection, encoder.text_projection.float())
    assert type(loaded.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"

    torch.save(torch.jit.load(str(path)).state_dict(), tmp_path / "saved.pth")
    again = build_text_encoder(str(gelu), str(tmp_path / "saved.pth"), 24)
    assert torch.equal(again.token_embedding.weight, loaded.token_embedding.weight)
    assert type(again.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def test_gelu_with_unknown_weights_warns(tmp_path, caplog):
    gelu = tmp_path / "gelu.json"
    gelu.write_text(json.dumps(TINY_TOWER | {"quick_gelu": False}))
    torch.save(clip_state(random_encoder(str(gelu))), tmp_path / "w.pt")
    caplog.clear()
    build_text_encoder(str(gelu), str(tmp_path / "w.pt"), 24)
    assert "uses GELU" in caplog.text


def test_a_tag_is_fetched_by_open_clip(tmp_path, monkeypatch):
    """The file behind the tag `openai` is read as any other; here a stand-in of the real size."""
    torch.manual_seed(0)
    source = build_text_encoder("RN50-quickgelu", "", 16)
    torch.save(clip_state(source), tmp_path / "w.pt")
    asked = []
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda cfg: asked.append(cfg) or str(tmp_path / "w.pt"))
    encoder = build_text_encoder("RN50", "openai", 32)
    assert "openaipublic" in asked[0]["url"]
    assert type(encoder.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert encoder.dim == 32
