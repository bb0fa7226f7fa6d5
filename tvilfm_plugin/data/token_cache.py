"""Token ids of a data set's captions, kept beside its image cache: 68,000 texts take several seconds to tokenise.

A file is `tokens-<fingerprint>.npy`, an ordinary (S, 77) uint16 array. The fingerprint is that of the texts, in order,
and of the tokenizer's versions, so a file is never stale; what nobody asks for any more may be deleted.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tvilfm_plugin.data.tokenizer import CONTEXT_LENGTH, TokenStore
from tvilfm_plugin.data.words import CLIP, Tokenizer
from tvilfm_plugin.evaluation.fingerprint import SOURCE, version_of_software
from tvilfm_plugin.files.arrays import known_array
from tvilfm_plugin.files.writing import atomic_file, make_folder

logger = logging.getLogger("fastreid." + __name__)

# Goes up when the same texts would get other ids from the same packages.
TOKENIZER_VERSION = 1


def stored_tokens(texts: Iterable[str], folder: Path, tokenizer: Tokenizer = CLIP) -> TokenStore:
    """What `tokenizer` makes of some texts: from the folder if it is there; else stored for the next process.

    Any number of processes may ask at once: each that finds nothing writes the same file, complete, under its name. A
    folder that cannot be written costs time only.
    """
    distinct = list(dict.fromkeys(texts))
    path = folder / f"tokens-{_fingerprint(distinct, tokenizer.name)}.npy"
    known = None
    with contextlib.suppress(OSError):  # what cannot be read is written again; why that fails is said then
        known = known_array(path, (len(distinct), tokenizer.length), np.uint16, "token file")
    store = TokenStore(distinct, known, tokenizer)
    if known is None:
        try:
            make_folder(folder)
            with atomic_file(path) as file:
                np.save(file, store.ids, allow_pickle=False)
        except OSError as error:
            logger.warning("Tokens are not stored in %s (%s); every run will tokenise anew.", folder, error)
    return store


def _fingerprint(texts: list[str], name: str = "") -> str:
    digest = hashlib.sha256(f"{TOKENIZER_VERSION} {CONTEXT_LENGTH}{name}".encode())
    for package in ("transformers",) if name else ("open_clip_torch", "ftfy"):
        if (found := version_of_software(package)) != SOURCE:  # from a source tree: then the texts alone must do
            digest.update(f" {package} {found}".encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"\n{len(encoded)} ".encode() + encoded)
    return digest.hexdigest()[:20]
