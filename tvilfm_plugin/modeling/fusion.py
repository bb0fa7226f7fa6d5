"""Fusions as parts of a model. The formulas lie beside the ensemble's, since an evaluation applies them to stored embeddings."""

from tvilfm_plugin.evaluation.fusion import Add, FilteredAdd, Fusion

__all__ = ["Add", "FilteredAdd", "Fusion"]
