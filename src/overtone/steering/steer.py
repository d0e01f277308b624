"""`Steering`: an edit along a direction, where and when; and several of them in force in a model at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from overtone.core.sites import Site
from overtone.directions.direction import Direction
from overtone.steering.edit import Edit
from overtone.steering.when import When

if TYPE_CHECKING:
    from overtone.models.hooked import HookedModel
    from overtone.models.hooks import Call, Editor


@dataclass(frozen=True, eq=False)
class Steering:
    """One edit along one direction, at the direction's site, at the positions of `when` (default: every generated
    token).
    """

    direction: Direction
    edit: Edit
    when: When = field(default_factory=When)

    @property
    def site(self) -> Site:
        """Where it acts."""
        return self.direction.site

    def check(self, model: "HookedModel") -> None:
        """Return quietly if the model can be steered so. Raises SiteError or ShapeError as `Direction.require`."""
        site = model.check(self.site)
        self.direction.require(model=model.fingerprint, width=model.width(site))

    def edited(self, states: Tensor, mask: Tensor) -> Tensor:
        """The states (batch, columns, width) with the edit applied where mask (batch, columns) is True; elsewhere
        bit-identical.
        """
        out = states.clone()
        out[mask] = self.edit.apply(states[mask], self.direction)
        return out

    def editor(self) -> "Editor":
        """The function that `HookedModel.editing` takes; it returns the very same tensor where nothing applies."""

        def edit(states: Tensor, call: "Call") -> Tensor:
            mask = self.when.mask(call)
            return self.edited(states, mask) if bool(mask.any()) else states

        return edit

    def describe(self) -> dict[str, Any]:
        """Direction, edit and when as plain data, for provenance."""
        d = self.direction
        return {
            "direction": d.name,
            "site": str(d.site),
            "origin": dict(d.origin),
            **self.edit.describe(),
            "when": self.when.describe(),
        }


@contextmanager
def steered(model: "HookedModel", steering: Sequence[Steering]) -> "Iterator[HookedModel]":
    """The model with steerings in force inside the block, in the order given at each site; all removed afterwards.

    Raises SiteError or ShapeError before anything runs if a direction does not belong to the model.
    """
    editors: dict[Site, list[Editor]] = {}
    for one in steering:
        one.check(model)
        editors.setdefault(one.site, []).append(one.editor())
    with model.editing(editors):
        yield model


def everywhere(
    direction: Direction, edit: Edit, sites: Sequence[Site | str], when: When | None = None
) -> list[Steering]:
    """The same edit at several sites of one residual stream (directional ablation: every embedding, attn_out and
    mlp_out).
    """
    return [Steering(direction.moved(site), edit, when or When()) for site in sites]
