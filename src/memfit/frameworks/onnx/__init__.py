"""ONNX: files captured as Programs and written back. The only place that imports onnx and onnxruntime, and only on use."""
