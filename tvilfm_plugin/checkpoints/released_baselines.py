"""Names of the authors' checkpoints of AGW, CAJ, DEEN, MMN, DDAG and YYDS, and ours.

Their files hold several complete ResNets, of which only the stems and one trunk (YYDS: two) are used.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from tvilfm_plugin.checkpoints.released_mip import Translation
from tvilfm_plugin.modeling.methods.mmn import Projection

METHODS = ("agw", "caj", "deen", "mmn", "ddag", "yyds")
_STEMS = {"rgb": "visible_module.visible.", "ir": "thermal_module.thermal."}
_YYDS_STEMS = {"rgb": "visible_module.", "ir": "thermal_module."}

# Ours -> theirs, by the beginning of a name.
_SHARED = (
    (r"visual\.backbone\.base\.mfa\.(\d)\.channel\.", lambda m: f"MFA{int(m[1]) + 1}.CNL."),
    (r"visual\.backbone\.base\.mfa\.(\d)\.spatial\.", lambda m: f"MFA{int(m[1]) + 1}.PNL."),
    (r"visual\.backbone\.base\.dee\.branches\.(\d)\.dilated\.(\d)\.", lambda m: f"DEE.FC{int(m[1]) + 1}{int(m[2]) + 1}."),
    (r"visual\.backbone\.base\.dee\.branches\.(\d)\.out\.", lambda m: f"DEE.FC{int(m[1]) + 1}."),
    (r"visual\.backbone\.base\.(NL_\d\.\d)\.g\.", r"\1.g.0."),
    (r"visual\.backbone\.base\.(NL_\d\.\d)\.", r"\1."),
    (r"visual\.backbone\.base\.colour\.module\.", "visible_2_text.base."),
    (r"visual\.backbone\.base\.", "base_resnet.base."),
    (r"visual\.relation\.end\.text_(\d)\.", r"joint_encoder.textual_fc_\1."),
    (r"visual\.relation\.end\.joint\.", "joint_encoder.joint_embedding.conv."),
    (r"visual\.relation\.visual_(\d)\.", r"joint_encoder.visual_conv_\1."),
    (r"visual\.middle\.decode\.", "decode."),
    (r"visual\.middle\.encoders\.(rgb|ir)\.(\w+)\.", lambda m: f"{m[2]}{('rgb', 'ir').index(m[1]) + 1}."),
    (r"heads\.(neck|bn)\.", "bottleneck."),
    (r"heads\.necks\.(\d)\.", lambda m: f"bottleneck{int(m[1]) + 1}."),
    (r"heads\.classifier\.(\d)\.", lambda m: f"classifier{int(m[1]) + 1}."),
    (r"heads\.classifier\.identity\.", "classifier."),
    (r"heads\.classifier\.joint\.", "joint_classifier."),
    (r"heads\.classifier\.graph\.attentions\.(\d)\.", r"attention_\1."),
    (r"heads\.classifier\.graph\.out\.", "out_att."),
    (r"heads\.classifier\.", "classifier."),
    (r"heads\.joint_neck\.", "joint_bn."),
    (r"heads\.colour\.", "visible_projection."),
    (r"heads\.part_bn\.", "wpa.bottleneck."),
    (r"heads\.parts\.query\.", "wpa.fc1.0."),
    (r"heads\.parts\.key\.", "wpa.fc2."),
    (r"heads\.parts\.value\.", "wpa.fc3."),
    (r"heads\.parts\.gate", "wpa.gate"),
    (r"text\.encoder\.", "text_encoder."),
    (r"text\.projection\.", "text_projection."),
)
IGNORED = {
    r"(visible_module\.visible|thermal_module\.thermal)\.(layer\d|fc)\.": "behind a stem, which nothing runs",
    r"(base_resnet|visible_2_text)\.base\.(conv1|bn1|fc)\.": "outside the trunk, which nothing runs",
    r"(base_resnet|visible_2_text)\.base\.layer4\.": "the stage that RegDB's form leaves out",
    r"classifier[12]\.weight$": "DDAG's classifiers that nothing calls",
    r"wpa\.W\.": "DDAG's layer that nothing calls",
    r"text_encoder\.(pooler\.|embeddings\.(position|token_type)_ids$)": "of RoBERTa, which nothing reads",
}


def official_key(name: str, yyds: bool = False) -> str | None:
    """The authors' name of one of our tensors; None for what is in no file of theirs (MMN's projection, DDAG's record)."""
    if stem := re.fullmatch(r"visual\.backbone\.base\.(conv1|bn1)\.(rgb|ir)\.(.+)", name):
        return f"{(_YYDS_STEMS if yyds else _STEMS)[stem[2]]}{stem[1]}.{stem[3]}"
    for pattern, theirs in _SHARED:
        renamed, count = re.subn("^" + pattern, theirs, name)  # type: ignore[arg-type, call-overload]
        if count:
            return str(renamed)
    return None


def from_official(official: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Translation:
    """The authors' tensors under our names.

    Args:
        official: their state dict.
        shapes: name and shape of every tensor of our model.
    """
    found = Translation({}, {}, [], [], [])
    yyds = "visible_module.conv1.weight" in official
    starts = _starts(shapes)
    for name, shape in shapes.items():
        key = official_key(name, yyds)
        value = official.get(key or "", starts.get(name))
        if value is None:
            found.missing.append(name)
        elif value.shape.numel() != torch.Size(shape).numel() or _squeezed(value.shape) != _squeezed(shape):
            found.misshapen.append(f"{name} is {tuple(shape)}, {key} is {tuple(value.shape)}")
        else:
            # Their linear layers over stripes are 1x1 convolutions.
            found.state[name] = (value.float() if value.is_floating_point() else value).reshape(shape)
            found.loaded[name] = (key,) if key is not None and key in official else ()
    used = {key for keys in found.loaded.values() for key in keys}
    found.unused.extend(sorted(set(official) - used))
    return found


def _squeezed(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _starts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """What belongs to a loss or to a training and starts anew."""
    starts: dict[str, Tensor] = {}
    if "others" in shapes:
        starts["others"] = torch.tensor([0.0, 0.0, 0.0, -1.0])
    if first := shapes.get("projection.0.weight"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = Projection(first[1], first[0])
        starts |= {f"projection.{name}": value for name, value in fresh.state_dict().items()}
    return starts
