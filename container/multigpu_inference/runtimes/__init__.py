"""Networks as other runtimes run them: ONNX Runtime, TensorRT through it, AOTInductor. Used by replica workers."""
