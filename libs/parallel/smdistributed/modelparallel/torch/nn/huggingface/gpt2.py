"""Weights of gpt2 models between Hugging Face's form and `smp.nn`'s."""

from trainyard_parallel.huggingface.functions import export
from trainyard_parallel.huggingface.translate import GPT2

export(GPT2, globals())
