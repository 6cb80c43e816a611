"""`torch.sagemaker.nn.huggingface`."""
