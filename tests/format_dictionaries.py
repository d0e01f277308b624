"""Small dictionaries for the tests of formats: a trained one of every preset, and random ones of every rule."""

import torch

from overtone.core.batch import ActivationBatch, Where
from overtone.core.catalogue import entries
from overtone.core.sites import Site
from overtone.formats.plain import Above, Best, Gate, Plain, Positive
from overtone.training.fit import fit

WIDTH, LATENTS, K = 6, 16, 3
PRESETS = list(entries("dictionaries"))
HERE, THERE = Site("mlp_in", 0), Site("mlp_out", 0)
_MADE: dict = {}


def states(rows=100, width=WIDTH, seed=1):
    """(rows, width) correlated states with a mean."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) @ torch.randn(width, width, generator=generator) + 1


def trained(name):
    """A preset's dictionary after a short training, with whatever it asks for beside the states."""
    if name not in _MADE:
        _MADE[name] = fitted(entries("dictionaries")[name].thing.example(n_latents=8, k=K))
    return _MADE[name]


def fitted(preset):
    """The dictionary of some settings after a short training."""
    x = states(200, 8)
    where = Where(*(torch.zeros(len(x), dtype=torch.int64) for _ in range(3)))
    batch = ActivationBatch({HERE: x, THERE: x.roll(1, 1).abs() - 0.5 * x}, where, g={HERE: x.sin()})
    target = THERE if "y" in preset.needs else None
    return fit(preset, batch, site=HERE, target=target, n_tokens=2000, batch_rows=50, quiet=True).dictionary


def rules():
    """Every rule, with random numbers where it has some."""
    generator = torch.Generator().manual_seed(2)
    vectors = [torch.randn(LATENTS, generator=generator) for _ in range(3)]
    return {
        "positive": Positive(),
        "above": Above(vectors[0].abs()),
        "above-signed": Above(vectors[0].abs(), signed=True),
        "best": Best(K),
        "best-signed": Best(K, signed=True),
        "everything": Best(LATENTS, signed=True),
        "gate": Gate(vectors[1] / 2, vectors[2]),
    }


def plain(rule, *, centred=True):
    """Random matrices with a rule."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(LATENTS, WIDTH), (LATENTS,), (LATENTS, WIDTH), (WIDTH,)]
    return Plain(*(torch.randn(shape, generator=generator) for shape in shapes), rules()[rule], centred)
