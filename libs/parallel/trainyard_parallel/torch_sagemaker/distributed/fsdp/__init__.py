"""Paths that SageMaker scripts import."""
