"""The files of open_clip, as modules below this one: its package imports transformers and timm, which take a second.

So does `model.py`, for towers that are not CLIP's; it finds None in their place.
"""

import importlib.util
import sys
import types

_package = importlib.util.find_spec("open_clip")
if _package is None or _package.submodule_search_locations is None:
    raise ImportError("open_clip reads the texts and is not installed: pip install open_clip_torch==3.3.0")
__path__ = list(_package.submodule_search_locations)
for _file, _name in (("hf_model", "HFTextEncoder"), ("timm_model", "TimmModel")):
    _module = types.ModuleType(f"{__name__}.{_file}")
    setattr(_module, _name, None)
    sys.modules[_module.__name__] = _module
