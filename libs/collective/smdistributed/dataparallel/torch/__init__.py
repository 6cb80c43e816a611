"""PyTorch support; see torch_smddp for the backend."""
