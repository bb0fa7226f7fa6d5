"""Hits as a table."""

from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.retrieval.hits import SearchResult


def hits_table(result: SearchResult) -> str:
    """A Markdown table: rank, similarity, the share of each member, what is known of the image; without hits, a sentence."""
    if not result.hits:
        return "Nobody was found."
    members = list(result.hits[0].shares)
    rows = [["rank", "similarity", *(m.value for m in members), "person", "camera", "time", "image"]]
    for rank, hit in enumerate(result.hits, start=1):
        known = ("" if value is None else f"{value:g}" for value in (hit.pid, hit.camid, hit.time))
        shares = (f"{hit.shares[m]:.4f}" for m in members)
        rows.append([str(rank), f"{hit.similarity:.4f}", *shares, *known, hit.path])
    return "\n".join(aligned(rows, names=0))
