"""What exactly was measured: hashes of the tested data and of the weights, for protocol cards."""

import hashlib
import os
from importlib import metadata
from typing import Any

from torch import nn

from tvilfm_plugin.modality import Modality

SOURCE = "source"
"""The version of a package that is not installed."""


def data_sha256(data: Any, text: bool) -> str:
    """Of the tested images: path below the data set, person, camera and size of every query and gallery image, in order.

    Args:
        data: a `TriDataset`, or what has its `query` and `gallery`.
        text: whether the captions of these images belong to it.
    """
    relative = getattr(data, "relative", str)
    banks = getattr(data, "captions", {}) if text else {}
    infrared = getattr(data, "query_modality", Modality.IR) is Modality.IR
    digest = hashlib.sha256()
    for items, modality in ((data.query, Modality.IR), (data.gallery, Modality.RGB)):
        bank = banks.get(modality if infrared else None, {})
        for item in items:
            path = relative(item.path)
            size = os.path.getsize(item.path) if os.path.isfile(item.path) else -1
            digest.update(f"{path}\t{item.pid}\t{item.camid}\t{size}\n".encode())
            if path in bank:
                digest.update(f"{bank[path].text}\t{bank[path].rephrase}\n".encode())
    return digest.hexdigest()


def weights_sha256(model: nn.Module) -> str:
    """Of what retrieval uses: the classifier of a model that is only evaluated has no rows."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name.startswith("heads.classifier."):
            continue
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def version_of_software(package: str = "tvilfm-plugin") -> str:
    """Of the plugin, or of another package; "source" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return SOURCE
