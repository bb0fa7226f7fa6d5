"""Fusions as parts of a model; the formulas lie beside the ensemble, since evaluations apply them to stored embeddings."""

from tvilfm_plugin.evaluation.fusion import Add, FilteredAdd, Fusion

__all__ = ["Add", "FilteredAdd", "Fusion"]
