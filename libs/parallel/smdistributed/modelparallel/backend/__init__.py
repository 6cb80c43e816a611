"""Holds the error classes that launchers import."""
