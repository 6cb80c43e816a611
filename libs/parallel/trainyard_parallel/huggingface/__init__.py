"""Hugging Face models under version 1's tensor parallelism: what replaces them, and their weights in both forms."""
