"""Names of the authors' checkpoints of AGW, CAJ, DEEN, MMN, DDAG and YYDS, and ours.

Their files hold several complete ResNets, of which only the stems and one trunk (YYDS: two) are used.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from tvilfm_plugin.checkpoints.released_keys import Shapes, Table, Translation, renamed, translated
from tvilfm_plugin.modeling.methods.mmn import Projection

METHODS = ("agw", "caj", "deen", "mmn", "ddag", "yyds")
_STEMS = {"rgb": "visible_module.visible.", "ir": "thermal_module.thermal."}
_YYDS_STEMS = {"rgb": "visible_module.", "ir": "thermal_module."}
_SHARED: Table = (
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
    return renamed(name, _SHARED)


def from_official(official: Mapping[str, Tensor], shapes: Shapes) -> Translation:
    """The authors' tensors under our names; the arguments as in `released_keys.from_official`."""
    yyds = "visible_module.conv1.weight" in official
    starts = _starts(shapes)

    def find(name: str, shape: tuple[int, ...]) -> tuple[tuple[str, ...], Tensor | None]:
        key = official_key(name, yyds) or ""
        if key not in official:
            return (), starts.get(name)
        value = official[key]
        # Their linear layers over stripes are 1x1 convolutions.
        return (key,), value.reshape(shape) if _squeezed(value.shape) == _squeezed(shape) else value

    return translated(official, shapes, find)


def _squeezed(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _starts(shapes: Shapes) -> dict[str, Tensor]:
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
