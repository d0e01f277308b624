"""Semi-non-negative matrix factorisation with a winner-take-all step on the features.

X ~ G Z with codes G (rows, latents) >= 0 and features Z (latents, width) of either sign, few of whose entries are not
0. Source: SNMF, arXiv 2506.10920, after Ding, Li, Jordan 2010, "Convex and semi-nonnegative matrix factorizations".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 1e-6
SMALL = 1e-6


@dataclass(frozen=True, eq=False)
class Factorisation:
    """codes: (rows, latents) >= 0; features: (latents, width); both float64. losses: ||X - G Z||^2 after each round;
    the pair is the one of the smallest."""

    codes: Tensor
    features: Tensor
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The smallest squared error, which is the pair's."""
        return min(self.losses)


def semi_nmf(
    x: Float[Tensor, "rows width"], codes: Float[Tensor, "rows latents"], *, winners: float = 1.0,
    iterations: int = 1000, patience: int = 200, tolerance: float = 1e-5,
) -> Factorisation:  # fmt: skip
    """Alternate between features and codes, starting from `codes`; keep the best pair.

    Each round: Z = (G^T G + ridge)^-1 G^T X; keep the ceil(winners x width) largest magnitudes of each feature; give
    each column of G length 1 and its length to the feature; multiply G by sqrt((P+ + G Q-) / (P- + G Q+)), where P = X
    Z^T and Q = Z Z^T are split into positive and negative parts. Stops after `patience` rounds without a relative gain
    of `tolerance`. Without winner-take-all (winners = 1) the loss never rises; with it, it may.
    """
    x, g = x.double(), codes.double().clone()
    energy, losses, least = float(x.square().sum()), list[float](), math.inf
    best, since = (g, g.T @ x), 0
    for _ in range(iterations):
        z = winner_take_all(_solved(g, x), winners)
        g, z = rescaled(g, z)
        p, q = x @ z.T, z @ z.T
        g = g * ((_plus(p) + g @ _plus(-q)) / (_plus(-p) + g @ _plus(q) + SMALL)).sqrt()
        losses.append(max(0.0, energy - 2 * float((p * g).sum()) + float(((g.T @ g) * q).sum())))
        since = since + 1
        if losses[-1] <= least:
            since = 0 if losses[-1] < (1 - tolerance) * least else since
            best, least = (g, z), losses[-1]
        if since >= patience:
            break
    return Factorisation(*best, tuple(losses))


def winner_take_all(z: Float[Tensor, "latents width"], share: float) -> Float[Tensor, "latents width"]:
    """Each row with its ceil(share x width) largest magnitudes only; of equal ones the first stay."""
    keep = max(1, math.ceil(round(share * z.shape[1], 9)))  # 0.07 x 100 is 7.000000000000001 in floating point
    places = z.abs().argsort(dim=1, descending=True, stable=True)[:, :keep]
    return torch.zeros_like(z).scatter_(1, places, z.gather(1, places))


def rescaled(g: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with codes' columns of length 1 (columns of zeros stay)."""
    length = g.norm(dim=0).clamp_min(1e-12)
    return g / length, z * length[:, None]


def starts(x: Tensor, n_latents: int, generator: torch.Generator) -> dict[str, Callable[[], Tensor]]:
    """Ways to begin, by name, each giving codes (rows, n_latents): `random` (even in [0, 1]), `k_means` (membership
    in one of n_latents clusters) and `svd` (positive parts of the leading left singular vectors; at most
    min(rows, width) of them, the rest random)."""

    def random() -> Tensor:
        return torch.rand(len(x), n_latents, generator=generator, dtype=torch.float64).clamp_min(SMALL)

    def k_means() -> Tensor:
        from sklearn.cluster import KMeans

        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        lloyd = KMeans(min(n_latents, len(x)), n_init=1, max_iter=15, random_state=seed)  # pyright: ignore[reportArgumentType]
        member = torch.from_numpy(lloyd.fit_predict(x.double().numpy())).long()
        return torch.full((len(x), n_latents), SMALL, dtype=torch.float64).scatter_(1, member[:, None], 1.0)

    def svd() -> Tensor:
        left, values, _ = torch.linalg.svd(x.double(), full_matrices=False)
        g = random()
        n = min(n_latents, len(values))
        g[:, :n] = (left[:, :n] * values[:n].sqrt()).clamp_min(SMALL)
        return g

    return {"random": random, "k_means": k_means, "svd": svd}


def _solved(g: Tensor, x: Tensor) -> Tensor:
    ridge = RIDGE * torch.eye(g.shape[1], dtype=g.dtype)
    return torch.linalg.solve(g.T @ g + ridge, g.T @ x)


def _plus(m: Tensor) -> Tensor:
    return m.clamp_min(0)
