"""CLIP's text tower: open_clip's modules, published weights, a projection stretched to the visual width."""

import difflib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.data.tokenizer import CONTEXT_LENGTH, VOCABULARY, end_of_text
from tvilfm_plugin.files.json import expect_object, parse_json, read_json
from tvilfm_plugin.files.listing import in_lines
from tvilfm_plugin.files.shipped import weights_file
from tvilfm_plugin.files.weights import WeightsError, below, best_prefix, is_archive, misfits, read_tensors
from tvilfm_plugin.modeling.packed_text import can_pack, packed_transformer
from tvilfm_plugin.modeling.token_rows import whole_tables

logger = logging.getLogger("fastreid." + __name__)

# For MODEL.TEXT.WEIGHTS: a checkpoint of the whole model follows, so nothing is loaded and nothing is warned of.
FROM_CHECKPOINT = "checkpoint"

# Captions that are encoded at once on a CPU. More leave the caches.
CAPTIONS_AT_ONCE = 32

FILE_TYPES = (".pt", ".pth", ".bin", ".safetensors")


class TextEncoder(nn.Module):
    """Token ids -> one raw feature per caption, read at its end-of-text token.

    The parameters have the names of a CLIP state dict (`token_embedding.weight`, `transformer.resblocks.0...`).

    Attributes:
        pack: on a CPU, compute no position behind a caption's end (MODEL.TEXT.PACK).
        known_tokens: ids whose embeddings were stored, where the weights came without the others; None: all.
    """

    known_tokens: Tensor | None = None
    attn_mask: Tensor
    positional_embedding: nn.Parameter
    text_projection: nn.Parameter

    def __init__(self, tower: Any, *, eot: int | None = None) -> None:
        """Args:
        tower: an open_clip `TextTransformer` with a causal mask and a linear projection (width, D).
        eot: id of the end-of-text token; None: it is the largest id of the vocabulary, as CLIP's is.
        """
        super().__init__()
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        self.text_projection = tower.text_projection
        self.eot = eot
        self.pack = can_pack(tower.transformer)
        self.register_buffer("attn_mask", _causal_mask(len(tower.positional_embedding)), persistent=False)

    @property
    def dim(self) -> int:
        """D."""
        return self.text_projection.shape[1]

    @property
    def context_length(self) -> int:
        """The longest caption in tokens."""
        return len(self.positional_embedding)

    def end_of_text(self, tokens: Tensor) -> Tensor:
        """(N, L) token ids -> (N,) position of the first end-of-text token; on a CPU, a row without one raises."""
        end = self.token_embedding.num_embeddings - 1 if self.eot is None else self.eot
        return end_of_text(tokens, end, check=tokens.device.type == "cpu" and not torch.compiler.is_compiling())

    def trim(self, tokens: Tensor) -> Tensor:
        """Cut (N, L) to the longest caption; exact, because attention is causal and nothing behind the end is read.

        Rows shorter than the context were trimmed by whoever made them: looking again would wait for the device.
        """
        if tokens.shape[1] < self.context_length or not len(tokens):
            return tokens
        return tokens[:, : int(self.end_of_text(tokens).max()) + 1]

    def embed(self, tokens: Tensor) -> Tensor:
        """(N, L) token ids -> (N, L, width): tokens and positions."""
        length = tokens.shape[1]
        if length > self.context_length:
            raise ValueError(f"{length} tokens, but the text encoder has positions for {self.context_length}.")
        return self.token_embedding(tokens) + self.positional_embedding[:length]

    def features(self, tokens: Tensor) -> Tensor:
        """(N, L) token ids -> (N, L, width) before the final norm and the projection."""
        length = tokens.shape[1]
        return self.transformer(self.embed(tokens), attn_mask=self.attn_mask[:length, :length])

    def at_the_ends(self, tokens: Tensor) -> Tensor:
        """(N, L) token ids -> (N, width): `features` at the end-of-text tokens."""
        ends = self.end_of_text(tokens)
        # A GPU would have to tell the host how many positions are left; there the padded batch is computed.
        if self.pack and len(tokens) and tokens.device.type == "cpu":
            return self._packed(tokens, ends)
        return self.features(tokens)[torch.arange(len(tokens), device=tokens.device), ends]

    def _packed(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """A few captions of like length at a time."""
        order = ends.argsort()
        blocks = [
            packed_transformer(self.transformer, self.embed(tokens[some, : int(ends[some].max()) + 1]), ends[some])
            for some in order.split(CAPTIONS_AT_ONCE)
        ]
        return torch.cat(blocks)[order.argsort()]

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) int64 ids, L at most the context length, with any padding behind the end-of-text token -> raw (N, D)."""
        # The norm and the projection act on single positions: one per caption is enough.
        return self.ln_final(self.at_the_ends(self.trim(tokens))) @ self.text_projection


def resize_projection(projection: Tensor, dim: int) -> Tensor:
    """(width, E) -> (width, D) by linear interpolation; half-precision weights are rounded again, as in the released code."""
    if projection.shape[1] == dim:
        return projection
    stretched = F.interpolate(projection.float().unsqueeze(1), size=dim, mode="linear", align_corners=False)
    return stretched.squeeze(1).to(projection.dtype)


def build_text_encoder(arch: str, weights: str, dim: int | None) -> TextEncoder:
    """A text encoder by name.

    Args:
        arch: an open_clip architecture, or a JSON file in the format of open_clip's model configs.
        weights: a local file (OpenAI's TorchScript archive, a state dict as .pt/.pth, or .safetensors), an open_clip tag
            such as "openai" (which open_clip fetches), a model folder, the name of one that comes with the plugin
            ("example"), "" to start at random, or `FROM_CHECKPOINT`.
        dim: D, the width of the visual features; None: the tower's own.
    """
    config = _architecture(arch)
    dim = config["embed_dim"] if dim is None else dim
    arch = "described in the config" if arch.lstrip().startswith("{") else arch
    if not weights:
        logger.warning(
            f"MODEL.TEXT.WEIGHTS is empty: the text encoder {arch} starts at RANDOM. The published numbers need "
            "OpenAI's weights: name the local file, or set the tag 'openai'."
        )
    if weights in ("", FROM_CHECKPOINT):
        return TextEncoder(_tower(config, dim), eot=_eot(config))
    source = _find_weights(arch, weights)
    file = _read_weights(source.path)
    if source.quick_gelu or file.openai:
        if not config.get("quick_gelu"):
            logger.info(f"{arch}: QuickGELU, because these weights were trained with it")
        config["quick_gelu"] = True
    elif not config.get("quick_gelu") and not source.tagged:
        logger.warning(
            f"{arch} uses GELU. If {weights} comes from OpenAI, set MODEL.TEXT.ARCH to the architecture's -quickgelu name: "
            "the file does not tell, and the wrong one spoils the features without an error."
        )
    state = dict(file.text)
    if "text_projection" in state and state["text_projection"].ndim == 2:
        state["text_projection"] = resize_projection(state["text_projection"], dim)
    with torch.device("meta"):
        encoder = TextEncoder(_tower(config, dim), eot=_eot(config))
    state, _ = whole_tables(state, encoder.state_dict())
    _load(encoder, {name: value.float() for name, value in state.items()}, source.path)
    # What is no weight does not come from the file, and on the meta device it had no values.
    encoder.attn_mask = _causal_mask(encoder.context_length)
    logger.info(f"Text encoder {arch}: {len(file.text)} tensors from {source.path}, {file.ignored} others ignored")
    return encoder


def _architecture(arch: str) -> dict[str, Any]:
    """open_clip's model config of a name or of a JSON file."""
    if arch.lstrip().startswith("{"):  # the description itself, as the config of a run carries it
        config, arch = parse_json(arch, "MODEL.TEXT.ARCH"), "MODEL.TEXT.ARCH"
    elif arch.endswith(".json"):
        if not Path(arch).is_file():
            raise FileNotFoundError(f"MODEL.TEXT.ARCH names the file {arch!r}, which does not exist.")
        config = read_json(arch)
    else:
        import open_clip

        config = open_clip.get_model_config(arch)
        if config is None:
            alike = difflib.get_close_matches(arch, open_clip.list_models(), n=5, cutoff=0.5)
            raise ValueError(
                f"MODEL.TEXT.ARCH is {arch!r}, which is neither an open_clip architecture nor a .json file. Alike are "
                f"{', '.join(alike) or 'none'}; open_clip.list_models() has all."
            )
    config = expect_object(config, arch)
    config = expect_object(config.get("model_cfg", config), arch)
    text = config.get("text_cfg")
    if not isinstance(text, dict):
        raise ValueError(f"{arch} has no text_cfg: expected a model config like open_clip's, with embed_dim and text_cfg.")
    unlike_clip = [
        f"{key} {text[key]!r}"
        for key, clip in (
            ("hf_model_name", None),
            ("no_causal_mask", False),
            ("embed_cls", False),
            ("proj_type", "linear"),
            ("proj_bias", False),
        )
        if text.get(key, clip) != clip
    ]
    if text.get("pool_type", "argmax") not in ("argmax", "eos"):
        unlike_clip.append(f"pool_type {text['pool_type']!r}")
    if unlike_clip:
        raise ValueError(
            f"{arch} is not a CLIP text tower ({', '.join(unlike_clip)}): the feature must be read at the end-of-text "
            "token of a causal transformer with a plain projection. RN50-quickgelu is the paper's."
        )
    return config


def _tower(config: Mapping[str, Any], dim: int) -> nn.Module:
    """open_clip's text transformer with a projection of width `dim`."""
    from tvilfm_plugin.data.open_clip_files.model import _build_text_tower

    try:
        tower = _build_text_tower(dim, dict(config["text_cfg"]), quick_gelu=bool(config.get("quick_gelu")))
    # A description that somebody wrote fails wherever its numbers are used first.
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"MODEL.TEXT.ARCH describes no text tower that open_clip can build ({said}).") from None
    tokens, positions = tower.token_embedding.num_embeddings, len(tower.positional_embedding)
    if tokens < VOCABULARY or positions != CONTEXT_LENGTH:
        raise ValueError(
            f"MODEL.TEXT.ARCH describes a text tower for {tokens} tokens and {positions} positions; CLIP's tokenizer has "
            f"{VOCABULARY} and {CONTEXT_LENGTH}: set vocab_size and context_length."
        )
    return tower


def _eot(config: Mapping[str, Any]) -> int | None:
    text = config["text_cfg"]
    return text.get("eos_id", 2) if text.get("pool_type", "argmax") == "eos" else None


def _causal_mask(length: int) -> Tensor:
    return torch.full((length, length), float("-inf")).triu_(1)


class _Source(NamedTuple):
    path: Path
    quick_gelu: bool
    tagged: bool


class _Weights(NamedTuple):
    text: dict[str, Tensor]
    ignored: int
    openai: bool


def _find_weights(arch: str, weights: str) -> _Source:
    """The file that MODEL.TEXT.WEIGHTS means; a tag is fetched by open_clip."""
    if (file := weights_file(weights)).is_file():
        return _Source(file, quick_gelu=False, tagged=False)
    if weights.endswith(FILE_TYPES) or "/" in weights:
        raise FileNotFoundError(f"MODEL.TEXT.WEIGHTS names the file {weights!r}, which does not exist.")
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    tagged = get_pretrained_cfg(arch, weights)
    if not tagged:
        tags = list_pretrained_tags_by_model(arch)
        raise ValueError(
            f"MODEL.TEXT.WEIGHTS is {weights!r}, which is neither a file nor one of the tags that open_clip has for "
            f"{arch}: {', '.join(tags) or 'none'}."
        )
    return _Source(Path(download_pretrained(tagged)), quick_gelu=bool(tagged.get("quick_gelu")), tagged=True)


def _read_weights(path: Path) -> _Weights:
    """The text tensors of a file, in the names of a CLIP state dict."""
    state = _from_transformers(read_tensors(path))
    # OpenAI's files carry these three numbers; nobody else's do.
    openai = is_archive(path) or {"input_resolution", "context_length", "vocab_size"} <= set(state)
    names = ("token_embedding.weight", "ln_final.weight", "ln_final.bias", "text_projection")
    inside = below(state, best_prefix(state, names))
    heads = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
    text = {n: v for n, v in inside.items() if n.startswith(heads)}
    return _Weights(text, len(state) - len(text), openai)


_TRANSFORMERS = (
    (r"^(.*\.)?text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^(.*\.)?text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^(.*\.)?text_model\.final_layer_norm\.", "ln_final."),
    (r"^(.*\.)?text_model\.encoder\.layers\.(\d+)\.", r"transformer.resblocks.\2."),
    (r"^(transformer\.resblocks\.\d+)\.self_attn\.out_proj\.", r"\1.attn.out_proj."),
    (r"^(transformer\.resblocks\.\d+)\.layer_norm(\d)\.", r"\1.ln_\2."),
    (r"^(transformer\.resblocks\.\d+)\.mlp\.fc1\.", r"\1.mlp.c_fc."),
    (r"^(transformer\.resblocks\.\d+)\.mlp\.fc2\.", r"\1.mlp.c_proj."),
)


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of transformers' CLIPModel or CLIPTextModelWithProjection in CLIP's own names; others as they are."""
    if not any(re.search(r"(^|\.)text_model\.embeddings\.token_embedding\.weight$", name) for name in state):
        return dict(state)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for pattern, ours in _TRANSFORMERS:
            name = re.sub(pattern, ours, name)
        if re.search(r"(^|\.)text_projection\.weight$", name):
            name, value = "text_projection", value.T
        renamed[name] = value
    # The three projections of an attention layer are one tensor each here.
    for first in [name for name in renamed if ".self_attn.q_proj." in name and name.startswith("transformer.resblocks.")]:
        block, _, kind = first.partition(".self_attn.q_proj.")
        parts = [f"{block}.self_attn.{one}_proj.{kind}" for one in "qkv"]
        if all(part in renamed for part in parts):
            renamed[f"{block}.attn.in_proj_{kind}"] = torch.cat([renamed.pop(part) for part in parts])
    return {name: value for name, value in renamed.items() if not name.endswith("position_ids")}


def _load(encoder: TextEncoder, state: Mapping[str, Tensor], path: Path) -> None:
    """Every parameter must come from the file, in its shape."""
    if problems := misfits(state, encoder.state_dict()):
        raise WeightsError(
            f"{str(path)!r} does not hold the text tower that MODEL.TEXT.ARCH describes:\n{in_lines(problems)}\nChoose the "
            "architecture that the weights were made for."
        )
    encoder.load_state_dict(dict(state), assign=True)
