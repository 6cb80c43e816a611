"""The import name of SageMaker scripts; consumers compare the version with that of the library they were written for."""

__version__ = "1.15.0"
