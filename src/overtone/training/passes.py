"""One batch through a dictionary: forward, loss and backward; at once, or in blocks of rows.

A dense step at once keeps several matrices of rows x latents, which have left the cache before they are used again.
Where no row's code depends on another row and every term of the loss is a mean over rows, a block of rows can go all
the way before the next one starts, and gradients add up. The result is that of the whole batch up to the order of
additions, and depends on nothing but batch, parameters and state.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.kernels import dense
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.objectives.base import Objective, StepView
from overtone.training.distributed.share import Rows, Share, SharedStep
from overtone.training.step import Given

# Pre-activations of a block: with more of them a CPU's cache is left, with fewer it takes longer to add up gradients.
BLOCK, ACCELERATOR_BLOCK = 2**22, 2**28
LEAST = 128  # rows of a block


@dataclass(frozen=True, eq=False)
class Passed:
    """What is left of a batch after its backward pass, without gradients.

    loss: (); x, missed: (rows, width_out) what was to be reconstructed and by how much its reconstruction is above it,
    in the dictionary's units; counts: (latents,) rows in which each latent is active; active: () number of active
    places; peaks: (latents,) the largest pre-activations, where asked for; tallies: what each maintainer tallied; step:
    the whole step, None where rows went by in blocks.
    """

    loss: Tensor
    x: Tensor
    missed: Tensor
    counts: Tensor
    active: Tensor
    peaks: Tensor | None
    tallies: Sequence[Tensor | None]
    step: SharedStep | None = None


def whole(
    share: Share, objectives: Sequence[Objective], given: Given, maintainers: Sequence[Maintainer] = ()
) -> Passed:
    """The batch at once. Gradients are added to those of the parameters."""
    step = share.forward(given)
    loss = torch.stack([objective(step) for objective in objectives]).sum()
    loss.backward()
    counts, tallies = step.counts(), [maintainer.tally(step) for maintainer in maintainers]
    active = share.total(counts.sum())
    return Passed(loss.detach(), step.x, step.missed.detach(), counts, active, _peaks(step, given), tallies, step)


def _peaks(step: SharedStep, given: Given) -> Tensor | None:
    """(latents,) the largest pre-activations, if they are asked for."""
    if not given.peaks:
        return None
    return step.heads["u"].detach().amax(0) if step.chosen is None else step.chosen.peaks


def divisible(model: Autoencoder, objectives: Sequence[Objective], maintainers: Sequence[Maintainer]) -> bool:
    """Whether a dense step may go through its rows in blocks: parts, terms and maintainers say so."""
    return (
        not model.selection.rows_compete
        and all(o.separable or not o.needs_values for o in objectives)
        and not any(m.wants_step for m in maintainers)
    )


def in_blocks(
    share: Share, objectives: Sequence[Objective], given: Given, maintainers: Sequence[Maintainer] = ()
) -> Passed:
    """The batch as a dense step, block by block. Gradients are added to those of the parameters."""
    once, rows = _Once(share.model), share.rows(given)
    given = replace(given, dense=True, norms=once.norms, affine=once.affine)
    straight = [o for o in objectives if o.separable and not o.bent]
    bent = [_Bent(o, once.leaves) for o in objectives if o.bent]
    loss, parts, sums = given.x.new_zeros(()), [], _Sums(maintainers)
    for part in _blocks(rows.own(given), max(last - first for first, last in share.model.slice.spans)):
        weight = rows.copies * len(part.x) / len(given.x)
        with dense.adding_up() as adding:
            step = share.block(part)
            term = torch.stack([o(step) for o in straight]).sum() * weight
        for other in bent:
            other.take(step, weight)
        adding.open = True
        term.backward()
        loss += term.detach()
        parts.append(step.missed.detach())
        sums.take(step, part)
    sums.finish(rows)
    loss, missed = rows.total(loss) / rows.copies, rows.whole(torch.cat(parts))
    last = share.ending(given, missed)
    loss += _at_the_end([o for o in objectives if not o.separable], last)
    loss += sum((other.finish(given, rows) for other in bent), loss.new_zeros(()))
    once.finish()
    return Passed(loss, last.x, missed, sums.counts, share.total(sums.counts.sum()), sums.peaks, sums.tallies)


def _blocks(given: Given, n_latents: int) -> Iterator[Given]:
    """Some rows after the other, about equally many each time."""
    most = max(LEAST, (BLOCK if given.x.device.type == "cpu" else ACCELERATOR_BLOCK) // n_latents)
    n_rows = len(given.x)
    n_blocks = -(-n_rows // most)
    for i in range(n_blocks):
        rows = slice(n_rows * i // n_blocks, n_rows * (i + 1) // n_blocks)
        y, g = (None if part is None else part[rows] for part in (given.y, given.g))
        yield replace(given, x=given.x[rows], y=y, g=g, first=given.first + rows.start)


def _at_the_end(objectives: Sequence[Objective], step: StepView) -> Tensor:
    """The sum of the terms that need no values, after their backward pass."""
    loss = torch.stack([step.x.new_zeros(()), *(objective(step) for objective in objectives)]).sum()
    if loss.requires_grad:
        loss.backward()
    return loss.detach()


class _Once:
    """What all blocks use and a function of the parameters gives: computed once, its gradients sent on at the end."""

    def __init__(self, model: Autoencoder) -> None:
        found = (model.decoder.norms(), *model.encoder.affine(model.decoder))
        known = [t if t.is_leaf else t.detach().requires_grad_(t.requires_grad) for t in found]
        self.pairs = [(t, k) for t, k in zip(found, known, strict=True) if t is not k]
        self.norms, self.affine = known[0], (known[1], known[2])
        self.leaves = [t for t in (*model.parameters(), *(k for _, k in self.pairs)) if t.requires_grad]

    def finish(self) -> None:
        """Add the gradients to those of the parameters."""
        for tensor, known in self.pairs:
            if known.grad is not None:
                tensor.backward(known.grad)


class _Sums:
    """What maintainers learn of a batch, block by block; fields as in Passed."""

    def __init__(self, maintainers: Sequence[Maintainer]) -> None:
        self.maintainers = maintainers
        self.tallies: list[Tensor | None] = [None] * len(maintainers)
        self.counts: Tensor = torch.zeros(())
        self.peaks: Tensor | None = None

    def take(self, step: SharedStep, given: Given) -> None:
        """One block more."""
        peaks = _peaks(step, given)
        if peaks is not None:
            self.peaks = peaks if self.peaks is None else torch.maximum(self.peaks, peaks)
        self.counts = step.counts() + self.counts.to(step.values.device, torch.int32)
        for i, maintainer in enumerate(self.maintainers):
            new, before = maintainer.tally(step), self.tallies[i]
            self.tallies[i] = new if before is None or new is None else before + new

    def finish(self, rows: Rows) -> None:
        """With what other processes learned of theirs."""
        self.counts = rows.total(self.counts)
        self.peaks = None if self.peaks is None else rows.highest(self.peaks)
        self.tallies = [None if tally is None else rows.total(tally) for tally in self.tallies]


@dataclass(eq=False)
class _Bent:
    """A term that is a function of a mean: what its slope multiplies is known only after the last block."""

    objective: Objective
    leaves: list[Tensor]
    mean: Tensor | None = None
    gradients: dict[int, Tensor] = field(default_factory=dict)

    def take(self, step: StepView, share: float) -> None:
        """The part of a block that holds this share of the rows."""
        mean = self.objective.mean(step) * share
        found = torch.autograd.grad(mean, self.leaves, retain_graph=True, allow_unused=True)
        self.mean = mean.detach() if self.mean is None else self.mean + mean.detach()
        for i, gradient in enumerate(found):
            if gradient is not None:
                self.gradients[i] = gradient if i not in self.gradients else self.gradients[i] + gradient

    def finish(self, given: Given, rows: Rows) -> Tensor:
        """The term, after its gradients were added to those of the leaves."""
        assert self.mean is not None
        mean = (rows.total(self.mean) / rows.copies).requires_grad_()
        term = self.objective.of_mean(mean, given.progress, given.state)
        (slope,) = torch.autograd.grad(term, mean)
        for i, gradient in self.gradients.items():
            leaf, more = self.leaves[i], gradient * slope
            leaf.grad = more if leaf.grad is None else leaf.grad + more
        return term.detach()
