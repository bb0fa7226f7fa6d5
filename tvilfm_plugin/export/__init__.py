"""A trained model as ONNX graphs, for `tvilfm_plugin.runtime`."""
