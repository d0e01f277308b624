"""Planted hierarchies: parents that are active with exactly one of their children, and features that stand alone.

Source of the set-up: the toy model of MP-SAE, arXiv 2506.03093. All features are orthogonal but for siblings, which are
mixed a little; so a dictionary has no reason to merge a child with its parent except that it saves an active latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from overtone.core.errors import SettingError
from overtone.core.seeds import torch_generator


@dataclass(frozen=True, eq=False)
class PlantedTree:
    """parents: (parents, width); children: (parents, children, width); solos: (solos, width); unit rows. p_parent,
    p_solo: chance that a feature is active in a row."""

    parents: Tensor
    children: Tensor
    solos: Tensor
    p_parent: float
    p_solo: float

    @property
    def atoms(self) -> Tensor:
        """All features: parents, children by parent, solos."""
        return torch.cat([self.parents, self.children.flatten(0, 1), self.solos])

    @property
    def mean_active(self) -> float:
        """Expected number of active features per row: each active parent brings a child."""
        return 2 * self.p_parent * len(self.parents) + self.p_solo * len(self.solos)

    def sample(self, rows: int, *, seed: int) -> Tensor:
        """(rows, width) sums of the active features with amplitudes 1.5 + 0.25 N(0, 1), never below 0. Each active
        parent brings one of its children, drawn evenly, of its own amplitude."""
        draw = torch_generator(seed, "planted tree")
        n_parents, n_children, _ = self.children.shape

        def amplitudes(active: Tensor) -> Tensor:
            return active * (1.5 + 0.25 * torch.randn(active.shape, generator=draw)).clamp_min(0)

        active = torch.rand(rows, n_parents, generator=draw) < self.p_parent
        which = torch.randint(n_children, (rows, n_parents), generator=draw)
        born = torch.zeros(rows, n_parents, n_children).scatter_(2, which[..., None], amplitudes(active)[..., None])
        alone = torch.rand(rows, len(self.solos), generator=draw) < self.p_solo
        return torch.cat([amplitudes(active), born.flatten(1), amplitudes(alone)], 1) @ self.atoms


def plant_tree(
    width: int = 20, *, n_parents: int = 3, n_children: int = 3, n_solos: int = 8, p_parent: float = 0.3,
    p_solo: float = 0.025, mixing: float = 0.0895, seed: int = 0,
) -> PlantedTree:  # fmt: skip
    """A random tree of orthogonal directions; siblings are mixed: child + mixing x the sum of its siblings, at unit
    length. Raises SettingError if there is no room for all features in the width."""
    n = n_parents * (1 + n_children) + n_solos
    if min(n_parents, n_children) < 1 or n_solos < 0 or n > width:
        raise SettingError(
            f"{n_parents} parents with {n_children} children each and {n_solos} solos are {n} features, in width "
            f"{width}: use at least one parent and child, and no more features than width."
        )
    basis = torch.linalg.qr(torch.randn(width, width, generator=torch_generator(seed, "tree")))[0]
    raw = basis[n_parents : n_parents * (1 + n_children)].view(n_parents, n_children, width)
    mixed = raw + mixing * (raw.sum(1, keepdim=True) - raw)
    solos = basis[n_parents * (1 + n_children) : n]
    return PlantedTree(basis[:n_parents], mixed / mixed.norm(dim=2, keepdim=True), solos, p_parent, p_solo)


def merging(atoms: Tensor, tree: PlantedTree) -> float:
    """Mean over children of |cos| between the child's nearest atom and the child's parent, in [0, 1]: how much of the
    parent has been merged into the atom. 0 for the true atoms. atoms: (latents, width), unit rows."""
    children = tree.children.flatten(0, 1)
    nearest = atoms[(children @ atoms.T).abs().argmax(1)]
    return float((nearest * tree.parents.repeat_interleave(tree.children.shape[1], 0)).sum(1).abs().mean())
