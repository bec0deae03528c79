"""Deployable files: a trained model as ONNX, OpenVINO IR or a ``torch.export`` program, checked when it is written."""
