"""`torch.sagemaker.nn`."""
