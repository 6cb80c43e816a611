"""Mixture of experts: routing, and experts spread over ranks."""
