"""Small models in float64, data, and training in one process as the reference."""

import torch
import torch.nn.functional as F
from torch import nn

STEPS, BATCH, SEQUENCE, WIDTH, HEADS, VOCABULARY = 4, 12, 6, 16, 4, 32


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(4)), nn.Linear(WIDTH, WIDTH)
        )

    def forward(self, x):
        return self.layers(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        # The true gradient of a bias of k is zero, and AdamW would turn its rounding noise into steps.
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH, bias=i != 1) for i in range(4))

    def forward(self, x, mask):
        q, k, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5 + mask
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x, mask):
        x = x + self.attention(self.ln1(x), mask)
        return x + self.fc2(F.gelu(self.fc1(self.ln2(x))))


class GPT(nn.Module):
    """Parent code on purpose: positions, a mask, residual work around blocks, a head tied to the embedding."""

    def __init__(self, layers=4, tied=True, dropout=0.0):
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, WIDTH)
        self.wpe = nn.Embedding(SEQUENCE, WIDTH)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.ln = nn.LayerNorm(WIDTH)
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, ids, labels=None):
        positions = torch.arange(ids.shape[1], device=ids.device)
        mask = torch.full((ids.shape[1], ids.shape[1]), -1e4, dtype=self.scale.dtype, device=ids.device).triu(1)
        first = self.drop(self.wte(ids) + self.wpe(positions))
        x = first
        for block in self.blocks:
            x = block(x, mask)
        # `first` is made on the first stage and used on the last.
        logits = self.head(self.ln(x + 0.1 * first) * self.scale)
        if labels is None:
            return {"logits": logits}
        return {"loss": token_loss(logits, labels), "logits": logits}


def token_loss(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def make(kind, **options):
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float64)
    return {"mlp": MLP, "gpt": GPT}[kind](**options)


def data(kind, step):
    generator = torch.Generator().manual_seed(100 + step)
    if kind == "mlp":
        x = torch.randn(BATCH, WIDTH, generator=generator, dtype=torch.float64)
        return x, torch.randn(BATCH, WIDTH, generator=generator, dtype=torch.float64)
    ids = torch.randint(VOCABULARY, (BATCH, SEQUENCE + 1), generator=generator)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def loss_of(kind, output, target):
    return F.mse_loss(output, target) if kind == "mlp" else token_loss(output["logits"], target)


def make_optimizer(name, parameters):
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def train_alone(kind, optimizer="adamw", steps=STEPS, **options):
    """(losses, weights by name) of plain PyTorch on whole batches."""
    model = make(kind, **options)
    opt = make_optimizer(optimizer, model.parameters())
    losses = []
    for step in range(steps):
        x, y = data(kind, step)
        opt.zero_grad()
        loss = loss_of(kind, model(x), y)
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses, {name: value.detach().clone() for name, value in model.state_dict().items()}


def difference(weights, reference):
    """Largest relative difference over all tensors; names must agree."""
    assert set(weights) == set(reference), set(weights) ^ set(reference)
    return max(
        ((weights[name] - value).abs().max() / value.abs().max().clamp(min=1e-300)).item() for name, value in reference.items()
    )
