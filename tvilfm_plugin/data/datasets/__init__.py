"""The Tri- data sets; importing registers them in fast-reid's DATASET_REGISTRY."""

from tvilfm_plugin.data.datasets.llcm import TriLLCM
from tvilfm_plugin.data.datasets.regdb import TriRegDB
from tvilfm_plugin.data.datasets.sysu_mm01 import TriSYSUMM01

__all__ = ["TriLLCM", "TriRegDB", "TriSYSUMM01"]
