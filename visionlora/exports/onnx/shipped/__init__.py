"""What is shipped beside a model.onnx, as it stands: imports nothing of ours."""
