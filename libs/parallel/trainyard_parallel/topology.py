"""Which rank holds which part: a pure function of the degrees and the placement order.

The world is a mixed-radix number with digits D (reduced data), P (pipeline) and
T (tensor); the right-most letter of the order varies fastest with global rank.
A group of a kind holds the ranks that differ only in the kind's digits, in
ascending global rank; SDP groups are runs of consecutive members of RDP groups.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-extended-features-pytorch-ranking-mechanism.html
"""

from dataclasses import dataclass, field

# Kind → digits that vary inside a group of it.
KINDS = {"world": "DPT", "mp": "PT", "pp": "P", "tp": "T", "dp": "DT", "rdp": "D"}


@dataclass(frozen=True)
class Topology:
    """Groups of every kind, each a tuple of ascending global ranks."""

    world: int
    pp: int
    tp: int
    order: str = "DPT"
    sdp: int = 1
    groups: dict = field(init=False, compare=False)

    def __post_init__(self):
        if self.world % (self.pp * self.tp):
            raise ValueError(f"{self.world} ranks are no multiple of {self.pp} × {self.tp}")
        if self.rdp % self.sdp:
            raise ValueError(f"{self.sdp} does not divide {self.rdp} data-parallel ranks")
        groups = {kind: self._split(digits) for kind, digits in KINDS.items()}
        groups["sdp"] = [g[i : i + self.sdp] for g in groups["rdp"] for i in range(0, self.rdp, self.sdp)]
        # Ranks that hold the same shard of the same part.
        groups["replica"] = [tuple(g[i :: self.sdp]) for g in groups["rdp"] for i in range(self.sdp)]
        object.__setattr__(self, "groups", groups)

    @property
    def rdp(self):
        return self.world // (self.pp * self.tp)

    def digits(self, rank):
        """{'D': …, 'P': …, 'T': …} of a global rank."""
        sizes = {"D": self.rdp, "P": self.pp, "T": self.tp}
        result = {}
        for letter in reversed(self.order):
            rank, result[letter] = divmod(rank, sizes[letter])
        return result

    def _split(self, varying):
        groups = {}
        for rank in range(self.world):
            key = tuple(digit for letter, digit in sorted(self.digits(rank).items()) if letter not in varying)
            groups.setdefault(key, []).append(rank)
        return [tuple(group) for group in groups.values()]

    def group_of(self, kind, rank):
        return next(group for group in self.groups[kind] if rank in group)
