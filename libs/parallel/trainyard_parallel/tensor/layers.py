"""Linear and embedding layers with split weights."""

import torch.nn.functional as F
from torch import nn

from trainyard_parallel.errors import not_available
from trainyard_parallel.tensor.module import DistributedModule
from trainyard_parallel.tensor.movement import gather_samples, move


class DistributedLinear(DistributedModule):
    """As nn.Linear, split over **input** channels: rank k holds W[:, in_k]; the bias is whole on every rank.

    `in_features` must divide by the tensor-parallel degree. Initial weights are those of nn.Linear with the same seed.
    """

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None, whole=None):
        super().__init__()
        whole = whole if whole is not None else nn.Linear(in_features, out_features, bias, device, dtype)
        self.in_features, self.out_features = in_features, out_features
        self.weight = self.split_parameter(whole.weight, 1)
        self.bias = nn.Parameter(whole.bias.detach().clone()) if whole.bias is not None else None

    def forward(self, x):
        partial = F.linear(move("rows_to_columns", x), self.scaled(self.weight))
        out = move("scatter_sum", partial)
        return out if self.bias is None else out + self.bias


class DistributedEmbedding(DistributedModule):
    """As nn.Embedding, split over the embedding dimension, which must divide by the tensor-parallel degree.

    `_weight` is the whole table to start from; else values are normal with `initializer_range`.
    """

    def __init__(
        self,
        num_embeddings,
        embedding_dim,
        padding_idx=None,
        max_norm=None,
        norm_type=2.0,
        scale_grad_by_freq=False,
        sparse=False,
        _weight=None,
        initializer_range=0.02,
        _skip_allgather=False,
        _skip_scatter_and_merge=False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if max_norm is not None or scale_grad_by_freq or sparse or _skip_allgather or _skip_scatter_and_merge:
            raise not_available(
                "DistributedEmbedding with max_norm, scale_grad_by_freq, sparse, _skip_allgather or _skip_scatter_and_merge",
                "leave them at their defaults",
            )
        whole = nn.Embedding(num_embeddings, embedding_dim, padding_idx, device=device, dtype=dtype, _weight=_weight)
        if _weight is None:
            nn.init.normal_(whole.weight, std=initializer_range)
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = self.split_parameter(whole.weight, 1)

    def forward(self, ids):
        part = F.embedding(gather_samples(ids), self.scaled(self.weight), self.padding_idx)
        return move("columns_to_rows", part)


class SplitOutLinear(DistributedModule):
    """Rank k holds the outputs out_k (weight rows and bias): the first half of a pair, inside a block."""

    def __init__(self, in_features, out_features, std=None, device=None, dtype=None, bias=True):
        super().__init__()
        whole = initial(nn.Linear(in_features, out_features, bias, device, dtype), std)
        self.weight = self.split_parameter(whole.weight, 0)
        self.bias = self.split_parameter(whole.bias, 0) if bias else None

    def forward(self, x):
        return F.linear(x, self.scaled(self.weight), None if self.bias is None else self.scaled(self.bias))


class SplitInLinear(DistributedModule):
    """Rank k holds W[:, in_k] and sees its channels already: the second half of a pair, inside a block."""

    def __init__(self, in_features, out_features, std=None, device=None, dtype=None, bias=True):
        super().__init__()
        whole = initial(nn.Linear(in_features, out_features, bias, device, dtype), std)
        self.weight = self.split_parameter(whole.weight, 1)
        self.bias = nn.Parameter(whole.bias.detach().clone()) if bias else None

    def forward(self, x):
        out = move("scatter_sum", F.linear(x, self.scaled(self.weight)))
        return out if self.bias is None else out + self.bias


def initial(linear, std):
    if std is not None:
        nn.init.normal_(linear.weight, std=std)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
    return linear
