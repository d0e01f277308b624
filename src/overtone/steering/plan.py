"""Several arms in one batch: rows of different arms pass through the model together, each with its own edits.

An arm is everything that is done to a group of rows: a sequence of `Steering` and `LogitBias`. The plan makes one
editor per site, applies each edit to its own rows only (the others stay bit-identical), and counts where each one
fired: a hook that never fires is the field's classic silent bug.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from overtone.core.sites import Site
from overtone.models.hooks import Call
from overtone.steering.bias import LogitBias
from overtone.steering.steer import Steering
from overtone.steering.when import When

if TYPE_CHECKING:
    from overtone.models.hooked import HookedModel
    from overtone.models.hooks import Editor

Arm = Sequence[Steering | LogitBias]
Turn = dict[When, dict[int, tuple[int, Any]]]
"""when -> arm -> (place in the arm, steering): what is applied at one site at the same turn."""


class Plan:
    """What is done to which row of a batch.

    arms: one sequence of steerings each; of_row: (batch,) int64, the arm of each row. Directions and biases are
    checked against the model at once (SiteError, ShapeError). counts: (rows, most steerings of an arm) int64, the
    positions at which the i-th steering of a row's arm was applied so far; rows keep their place in it when `select`
    shrinks the batch.
    """

    def __init__(self, model: "HookedModel", arms: Sequence[Arm], of_row: Int[Tensor, " batch"]) -> None:
        for one in {id(one): one for arm in arms for one in arm}.values():
            one.check(model)
        self.arms, self.of_row = [tuple(arm) for arm in arms], of_row.to(model.device)
        self.row_ids = torch.arange(len(of_row), device=model.device)
        most = max((len(arm) for arm in self.arms), default=0)
        self.counts = torch.zeros(len(of_row), most, dtype=torch.int64, device=model.device)
        self._edits, self._biases = self._turns(Steering), self._turns(LogitBias).get(None, [])

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with some rows of the present batch, in this order."""
        rows = rows.to(self.of_row.device)
        self.of_row, self.row_ids = self.of_row[rows], self.row_ids[rows]

    def editors(self) -> "dict[Site, Editor]":
        """One editor per site, for `HookedModel.editing`."""
        return {site: self._editor(turns) for site, turns in self._edits.items() if site is not None}

    def biased(
        self, logits: Float[Tensor, "batch columns vocabulary"], call: Call
    ) -> Float[Tensor, "batch columns vocabulary"]:
        """The logits of the columns from call.start on, with the biases of each row's arm; the same tensor if none
        applies.
        """
        for turn in self._biases:
            for i, one, mask in self._fired(turn, call):
                self._count(i, mask)
                logits = one.biased(logits, mask)
        return logits

    def _editor(self, turns: list[Turn]) -> "Editor":
        def edit(states: Tensor, call: Call) -> Tensor:
            out = states
            for turn in turns:
                for i, one, mask in self._fired(turn, call):
                    if out is states:
                        out = states.clone()
                    out[mask] = one.edit.apply(out[mask], one.direction)
                    self._count(i, mask)
            return out

        return edit

    def _turns(self, kind: type) -> dict[Site | None, list[Turn]]:
        """By site (None for biases): the first steering of every arm, then the second, ...; each turn by `when`,
        then by arm.
        """
        found: dict[Site | None, list[dict]] = {}
        for a, arm in enumerate(self.arms):
            done: dict[Site | None, int] = {}
            for i, one in enumerate(arm):
                if not isinstance(one, kind):
                    continue
                site = one.site if isinstance(one, Steering) else None
                turns, k = found.setdefault(site, []), done.get(site, 0)
                if k == len(turns):
                    turns.append({})
                turns[k].setdefault(one.when, {})[a] = (i, one)
                done[site] = k + 1
        return found

    def _fired(self, turn: Turn, call: Call) -> Iterator[tuple[int, Any, Tensor]]:
        """(place in its arm, steering, mask (batch, columns)) of every arm with a position where it applies now."""
        for when, by_arm in turn.items():
            mask = when.mask(call)
            rows = mask.any(1)
            if not bool(rows.any()):
                continue
            for a in self.of_row[rows].unique().tolist():
                if a in by_arm:
                    yield *by_arm[a], mask & (self.of_row == a)[:, None]

    def _count(self, place: int, mask: Bool[Tensor, "batch columns"]) -> None:
        self.counts[self.row_ids, place] += mask.sum(1)
