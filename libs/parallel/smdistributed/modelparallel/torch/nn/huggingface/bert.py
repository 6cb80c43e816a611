"""Weights of bert models between Hugging Face's form and `smp.nn`'s."""

from trainyard_parallel.huggingface.functions import export
from trainyard_parallel.huggingface.translate import BERT

export(BERT, globals())
