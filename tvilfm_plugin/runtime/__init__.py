"""Searching with an exported model: numpy, Pillow, onnxruntime and a tokenizer; neither torch nor fast-reid.

It is a part of this package, not one of its own, because it shares the code that decides: how a picture is resized, who votes,
what a hit is. Where torch is missing, `import tvilfm_plugin` registers nothing and this part works all the same.
"""

from tvilfm_plugin.runtime.retriever import OnnxRetriever

__all__ = ["OnnxRetriever"]
