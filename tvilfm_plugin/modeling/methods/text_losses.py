"""YYDS's text alignment: image-side and text-side features predict each other's identities, or each other's colours.

Letters: B rows of a batch, D width. Everything is float32 inside autocast; float64 stays float64.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tvilfm_plugin.modeling.distributed import full_precision
from tvilfm_plugin.modeling.losses import at_least_float32

SCALE = 5.0  # of cosine similarities
_COLOURS = """
aqua beige black blonde blue bronze brown camel coffee copper coral cream crimson cyan gold golden gray green grey indigo ivory
khaki lavender lilac lime magenta maroon mauve mustard navy olive orange peach pink plum purple red rose rust salmon scarlet
silver tan teal turquoise violet white wine yellow
"""
COLOURS = frozenset(re.findall(r"\w+", _COLOURS))
SHADES = frozenset(("bright", "dark", "deep", "light", "pale"))
JOINTS = frozenset(("and", "or"))


def colour_phrases(caption: str) -> list[str]:
    """The colour phrases of a caption: runs of colour words, with shades before and conjunctions between them.

    "a man with dark blue coat, white and red shoes" -> ["dark blue", "white and red"]. Every other word ends a phrase; the
    authors let a part-of-speech tagger end it at the next noun.
    """
    phrases: list[str] = []
    run: list[str] = []
    for word in [*re.findall(r"[a-z]+|[^\sa-z]", caption.lower()), "."]:
        if word in COLOURS or word in SHADES or (word in JOINTS and run):
            run.append(word)
            continue
        while run and run[-1] not in COLOURS:
            run.pop()
        if run:
            phrases.append(" ".join(run))
        run = []
    return phrases


def overlap_targets(colours: Sequence[Sequence[str]], pids: Tensor) -> Tensor:
    """How much the colours of two captions overlap: |A n B| / |A u B| of their phrases.

    Two captions without any colour leave the share undefined (the authors' code stops there): they count as alike where the
    identity is the same.

    Args:
        colours: B lists of phrases.
        pids: (B,) identities.

    Returns:
        (B, B) float32 in [0, 1].
    """
    sets = [frozenset(phrases) for phrases in colours]
    same = pids[:, None] == pids[None, :]
    shares = [[len(a & b) / len(a | b) if a | b else float("nan") for b in sets] for a in sets]
    overlap = torch.tensor(shares, dtype=torch.float32, device=pids.device)
    return torch.where(overlap.isnan(), same.float(), overlap)


def alignment_kl(first: Tensor, second: Tensor, targets: Tensor) -> Tensor:
    """KL(predicted || target) of the similarities' softmax, along the rows and along the columns.

    Args:
        first: (B, D).
        second: (B, D).
        targets: (B, B) non-negative likeness, symmetric, no row of zeros. Entry ij is divided by the sum of row *j*, as
            released: with unequal rows the targets of an anchor do not sum to 1.

    Returns:
        (), the mean over rows of either direction, summed.
    """
    with full_precision(first.device):
        first, second = (F.normalize(at_least_float32(rows), dim=1) for rows in (first, second))
        similarity = SCALE * first @ second.T
        share = targets.to(similarity.dtype)
        log_target = torch.log(share / share.sum(dim=1) + 1e-8)

        def kl(scores: Tensor) -> Tensor:
            return (F.softmax(scores, dim=1) * (F.log_softmax(scores, dim=1) - log_target)).sum(dim=1).mean()

        return kl(similarity) + kl(similarity.T)


def text_alignment(
    colour: Tensor, text: Tensor, pids: Tensor, text_targets: Tensor, overlap_everywhere: bool = False
) -> Tensor:
    """YYDS's text loss: image and text, image and image, text and text.

    Args:
        colour: (B, D) v2t, the colour features of visible images.
        text: (B, D) sentence features of their captions.
        pids: (B,) identities.
        text_targets: (B, B) likeness of the captions, from `overlap_targets`.
        overlap_everywhere: these targets also for the two terms with images (RegDB, as released).

    Returns:
        (), the mean of the three terms.
    """
    images = text_targets if overlap_everywhere else (pids[:, None] == pids[None, :]).float()
    pairs = ((colour, text, images), (colour, colour, images), (text, text, text_targets))
    return torch.stack([alignment_kl(*pair) for pair in pairs]).mean()
