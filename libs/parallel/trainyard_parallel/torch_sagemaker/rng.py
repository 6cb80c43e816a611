"""Generators for regions whose random numbers differ between tensor- or expert-parallel ranks."""

from contextlib import contextmanager

import torch

REGION = "model-parallel-rng"


def generator_states(device):
    """The states of the default generators that operations on `device` use."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def restore(states, device):
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1], device)


class RNGStateTracker:
    """Named generator states, with the interface of Megatron's tracker, which activation checkpointing of others expects."""

    def __init__(self, device, seed):
        self.device, self.states = device, {}
        self.add(REGION, seed)

    def add(self, name, seed):
        """A new region; raises ValueError if it exists."""
        if name in self.states:
            raise ValueError(f"region {name!r} of random numbers exists; give another name")
        kept = generator_states(self.device)
        torch.manual_seed(seed)
        self.states[name] = generator_states(self.device)
        restore(kept, self.device)

    def get_states(self):
        return dict(self.states)

    def set_states(self, states):
        self.states = dict(states)

    def reset(self):
        self.states = {}

    @contextmanager
    def fork(self, name=REGION):
        """Random numbers inside come from the region and go on there the next time."""
        if name not in self.states:
            raise KeyError(f"there is no region {name!r} of random numbers; known are {sorted(self.states)}")
        kept = generator_states(self.device)
        restore(self.states[name], self.device)
        try:
            yield
        finally:
            self.states[name] = generator_states(self.device)
            restore(kept, self.device)
