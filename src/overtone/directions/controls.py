"""Controls: directions that should do nothing special, to stand beside every effect."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from overtone.core.errors import ShapeError
from overtone.directions.direction import Direction


def random_like(
    direction: Direction, generator: torch.Generator, *, rows: Tensor | None = None, name: str = "random"
) -> Direction:
    """An isotropic random unit vector at the same place as a direction.

    It keeps the original's statistics and raw_norm, so that a strength in ANY unit means the same absolute size for
    both, which is what a control of equal norm needs. With `rows` (n, width) its own statistics are measured instead.
    """
    vector = torch.randn(direction.width, generator=generator, dtype=torch.float64)
    origin = {"how": "random_like", "of": direction.name, "statistics": "of the original" if rows is None else "own"}
    made = replace(direction, vector=vector, origin=origin, name=name)
    return made if rows is None else replace(made, raw_norm=1.0).measured(rows)


def shuffled(
    labels: Shaped[Tensor, " rows"], generator: torch.Generator, *, groups: Sequence[Hashable] | None = None
) -> Shaped[Tensor, " rows"]:
    """The labels in random order, permuted within groups (such as traces) so that each keeps its counts.

    Give them to any finder for the shuffled-label control. Raises ShapeError unless there is one group per label.
    """
    n = labels.shape[0]
    if groups is not None and len(groups) != n:
        raise ShapeError(f"{len(groups)} groups for {n} labels. Give one group for each label.")
    members: dict[Hashable, list[int]] = {}
    for i in range(n):
        members.setdefault(None if groups is None else groups[i], []).append(i)
    mixed = labels.clone()
    for indices in members.values():
        here = torch.tensor(indices)
        mixed[here] = labels[here[torch.randperm(len(indices), generator=generator)]]
    return mixed
