"""Which weights are published for a backbone, and fetching them: a file with its checksum in a cache that has a name."""

import logging
import os
from pathlib import Path

import torch
from filelock import FileLock

from tvilfm_plugin.files.writing import make_folder

logger = logging.getLogger("fastreid." + __name__)

_IBN = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
_VIT = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/jx_vit_base_p16_224-80ecf9dd.pth"
_RESNEST = "https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/"
# (builder, depth with "ibn_" and "se_" in front) -> "torchvision:NAME", "timm:NAME" or an address whose file name ends with
# the beginning of its sha256.
PUBLISHED = {
    **{("build_resnet_backbone", f"{d}x"): f"torchvision:ResNet{d}" for d in (18, 34, 50, 101)},
    ("build_resnet_backbone", "ibn_18x"): _IBN + "resnet18_ibn_a-2f571257.pth",
    ("build_resnet_backbone", "ibn_34x"): _IBN + "resnet34_ibn_a-94bc1577.pth",
    ("build_resnet_backbone", "ibn_50x"): _IBN + "resnet50_ibn_a-d9d0bb7b.pth",
    ("build_resnet_backbone", "ibn_101x"): _IBN + "resnet101_ibn_a-59ea0ac6.pth",
    ("build_resnet_backbone", "se_ibn_101x"): _IBN + "se_resnet101_ibn_a-fabed4e2.pth",
    ("build_resnext_backbone", "50x"): "torchvision:ResNeXt50_32X4D",
    ("build_resnext_backbone", "101x"): "timm:resnext101_32x4d.gluon_in1k",
    ("build_resnext_backbone", "ibn_101x"): _IBN + "resnext101_ibn_a-6ace051d.pth",
    ("build_resnest_backbone", "50x"): _RESNEST + "resnest50-528c19ca.pth",
    ("build_resnest_backbone", "101x"): _RESNEST + "resnest101-22405ba7.pth",
    ("build_resnest_backbone", "200x"): _RESNEST + "resnest200-75117900.pth",
    ("build_resnest_backbone", "269x"): _RESNEST + "resnest269-0cc87c48.pth",
    ("build_mobilenetv2_backbone", "1.0x"): "torchvision:MobileNet_V2",
    ("build_mobilenetv3_backbone", "Large"): "torchvision:MobileNet_V3_Large",
    ("build_mobilenetv3_backbone", "Small"): "torchvision:MobileNet_V3_Small",
    **{("build_effnet_backbone", f"b{n}"): f"torchvision:EfficientNet_B{n}" for n in range(6)},
    ("build_regnet_backbone", "200x"): "timm:regnetx_002.pycls_in1k",
    ("build_regnet_backbone", "200y"): "timm:regnety_002.pycls_in1k",
    ("build_regnet_backbone", "400y"): "torchvision:RegNet_Y_400MF",
    ("build_regnet_backbone", "1600x"): "torchvision:RegNet_X_1_6GF",
    ("build_regnet_backbone", "1600y"): "torchvision:RegNet_Y_1_6GF",
    ("build_regnet_backbone", "3200x"): "torchvision:RegNet_X_3_2GF",
    ("build_regnet_backbone", "3200y"): "torchvision:RegNet_Y_3_2GF",
    ("build_regnet_backbone", "4000x"): "timm:regnetx_040.pycls_in1k",
    ("build_regnet_backbone", "4000y"): "timm:regnety_040.pycls_in1k",
    ("build_regnet_backbone", "6400x"): "timm:regnetx_064.pycls_in1k",
    ("build_regnet_backbone", "6400y"): "timm:regnety_064.pycls_in1k",
    **{
        ("build_repvgg_backbone", name): f"timm:repvgg_{name.lower()}.rvgg_in1k"
        for name in ("A0", "A1", "A2", "B0", "B1", "B1g4", "B2", "B2g4", "B3", "B3g4")
    },
    ("build_vit_backbone", "base"): _VIT,
    ("build_mip_backbone", "base"): _VIT,
}


def fetch(builder: str, depth: str) -> Path:
    """The published weights of a backbone, from the cache or from their publisher, with a progress bar.

    The cache is torch hub's ($TORCH_HOME/hub/checkpoints) or, for timm's, that of the Hugging Face hub ($HF_HOME/hub).
    Checksums are compared by torch hub and by the hub's client. HF_HUB_OFFLINE forbids every fetching.

    Args:
        depth: MODEL.BACKBONE.DEPTH, with "ibn_" and "se_" in front where these are on.

    Raises:
        FileNotFoundError: nobody publishes any, or they cannot be reached; what can be done about it stands in the message.
    """
    source = PUBLISHED.get((builder, depth))
    if source is None:
        having = sorted(d for b, d in PUBLISHED if b == builder)
        raise FileNotFoundError(
            f"MODEL.BACKBONE.PRETRAIN is True, but no weights of {builder} {depth} are published where they can be fetched "
            f"(of this backbone: {', '.join(having) or 'none'}). Name a local file in MODEL.BACKBONE.PRETRAIN_PATH, or set "
            "MODEL.BACKBONE.PRETRAIN False to start at random."
        )
    kind, _, name = source.partition(":")
    if kind == "timm":
        return _from_timm(name)
    if kind == "torchvision":
        import torchvision

        weights = getattr(torchvision.models, f"{name}_Weights").IMAGENET1K_V1
        return _from_address(weights.url, f"torchvision {name} IMAGENET1K_V1")
    return _from_address(source, source.rpartition("/")[2])


def _from_address(url: str, name: str) -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    if not path.is_file():
        if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
            raise _unreachable(name, path, "HF_HUB_OFFLINE is set")
        make_folder(folder)
        logger.info(f"Fetching {name} to {path}")
        checksum = path.stem.rpartition("-")[2]
        try:
            with FileLock(f"{path}.lock"):
                if not path.is_file():
                    torch.hub.download_url_to_file(url, str(path), hash_prefix=checksum, progress=True)
        # No network, a name that is not resolved, a server's refusal (OSError), or another content (RuntimeError).
        except (OSError, RuntimeError) as error:
            raise _unreachable(name, path, str(error).splitlines()[0][:160]) from None
    return path


def _from_timm(name: str) -> Path:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    repository, file = f"timm/{name}", "model.safetensors"
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(repository, file))
    # The client's errors have no common class: offline mode, no network, an answer that is none.
    except Exception as error:
        reason = str(error).splitlines()[0][:160]
        raise _unreachable(f"timm {name}", Path(constants.HF_HUB_CACHE) / f"models--timm--{name}", reason) from None


def _unreachable(name: str, path: Path, reason: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"MODEL.BACKBONE.PRETRAIN is True, but {name} is not on this machine and cannot be fetched ({reason}). Put the file at "
        f"{path} or name it in MODEL.BACKBONE.PRETRAIN_PATH, or set MODEL.BACKBONE.PRETRAIN False to start at random."
    )
