"""A stand-in for torch_xla on hosts without Trainium: its device is the CPU and its group is Gloo.

The CPU device of the real torch_xla forms no group over processes (each is rank 0 of 1, and all_reduce does nothing), so a
distributed script cannot be tested with it. This package tests the launch path and the flow of such a script, and nothing
of XLA: no graph, no compiler, no Neuron runtime.
"""
