"""The Tri- data sets; importing registers them in fast-reid's DATASET_REGISTRY."""

from tvilfm_plugin.data.datasets.llcm import TriLLCM
from tvilfm_plugin.data.datasets.own import TriFolder, TriTable
from tvilfm_plugin.data.datasets.regdb import TriRegDB
from tvilfm_plugin.data.datasets.sysu_mm01 import TriSYSUMM01

__all__ = ["TriFolder", "TriLLCM", "TriRegDB", "TriSYSUMM01", "TriTable"]
