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

from overtone.dictionaries.autoencoder import Autoencoder, everywhere
from overtone.dictionaries.maintainers.base import Maintainer
from overtone.dictionaries.objectives.base import Objective
from overtone.training.distributed.share import Share, SharedStep
from overtone.training.kernels import dense
from overtone.training.step import Given, Step, forward, in_units

# Pre-activations of a block: with more of them a CPU's cache is left, with fewer it takes longer to add up gradients.
BLOCK, ACCELERATOR_BLOCK = 2**22, 2**28
LEAST = 128  # rows of a block


@dataclass(frozen=True, eq=False)
class Passed:
    """What is left of a batch after its backward pass, without gradients.

    loss: (); x, x_hat: (rows, width_out) what was to be reconstructed and its reconstruction, in the dictionary's
    units; fired: (latents,) bool; active: () number of active places; step: the whole step, None where rows went by in
    blocks.
    """

    loss: Tensor
    x: Tensor
    x_hat: Tensor
    fired: Tensor
    active: Tensor
    step: SharedStep | None = None


def whole(share: Share, objectives: Sequence[Objective], given: Given) -> Passed:
    """The batch at once. Gradients are added to those of the parameters."""
    step = share.forward(given)
    loss = torch.stack([objective(step) for objective in objectives]).sum()
    loss.backward()
    active = (step.values.detach() != 0).sum()
    return Passed(loss.detach(), step.x, step.x_hat.detach(), step.fired(), active, step)


def divisible(model: Autoencoder, objectives: Sequence[Objective], maintainers: Sequence[Maintainer]) -> bool:
    """Whether a dense step may go through its rows in blocks: parts, terms and maintainers say so."""
    return (
        not model.selection.rows_compete
        and all(o.separable or not o.needs_values for o in objectives)
        and not any(m.wants_step or m.wants_peaks for m in maintainers)
    )


def in_blocks(model: Autoencoder, objectives: Sequence[Objective], given: Given) -> Passed:
    """The batch as a dense step, block by block. Gradients are added to those of the parameters."""
    norms = model.decoder.norms()
    known = norms.detach().requires_grad_(norms.requires_grad)
    straight = [o for o in objectives if o.separable and not o.bent]
    bent = [_Bent(o, [p for p in (*model.parameters(), known) if p.requires_grad]) for o in objectives if o.bent]
    loss, parts = given.x.new_zeros(()), []
    for part in _blocks(replace(given, dense=True, norms=known), model.n_latents):
        share = len(part.x) / len(given.x)
        with dense.adding_up() as sums:
            step = forward(model, part)
            term = torch.stack([o(step) for o in straight]).sum() * share
        for other in bent:
            other.take(step, share)
        sums.open = True
        term.backward()
        loss += term.detach()
        parts.append((step.x_hat.detach(), step.values.detach().sign().abs_().sum(0)))  # cheaper than comparing with 0
    x_hat, counts = zip(*parts, strict=True)
    counts = torch.stack(counts).long().sum(0)
    passed = _at_the_end(model, [o for o in objectives if not o.separable], given, known, torch.cat(x_hat))
    loss += passed[0] + sum((other.finish(given) for other in bent), loss.new_zeros(()))
    if known.grad is not None:
        norms.backward(known.grad)
    return Passed(loss, passed[1], torch.cat(x_hat), counts > 0, counts.sum())


def _blocks(given: Given, n_latents: int) -> Iterator[Given]:
    """Some rows after the other, about equally many each time."""
    most = max(LEAST, (BLOCK if given.x.device.type == "cpu" else ACCELERATOR_BLOCK) // n_latents)
    n_rows = len(given.x)
    n_blocks = -(-n_rows // most)
    for i in range(n_blocks):
        rows = slice(n_rows * i // n_blocks, n_rows * (i + 1) // n_blocks)
        y, g = (None if part is None else part[rows] for part in (given.y, given.g))
        yield replace(given, x=given.x[rows], y=y, g=g, first=given.first + rows.start)


def _at_the_end(
    model: Autoencoder, objectives: Sequence[Objective], given: Given, norms: Tensor, x_hat: Tensor
) -> tuple[Tensor, Tensor]:
    """The sum of the terms that need no values, after their backward pass, and what was to be reconstructed."""
    inputs, x, centred = in_units(model, given)
    step = Step(
        model, x, x_hat, inputs, centred, x.new_zeros(0), {}, given.dead, given.progress, given.state, None, everywhere,
        known_norms=norms,
    )  # fmt: skip
    loss = torch.stack([x.new_zeros(()), *(objective(step) for objective in objectives)]).sum()
    if loss.requires_grad:
        loss.backward()
    return loss.detach(), x


@dataclass(eq=False)
class _Bent:
    """A term that is a function of a mean: what its slope multiplies is known only after the last block."""

    objective: Objective
    leaves: list[Tensor]
    mean: Tensor | None = None
    gradients: dict[int, Tensor] = field(default_factory=dict)

    def take(self, step: Step, share: float) -> None:
        """The part of a block that holds this share of the rows."""
        mean = self.objective.mean(step) * share
        found = torch.autograd.grad(mean, self.leaves, retain_graph=True, allow_unused=True)
        self.mean = mean.detach() if self.mean is None else self.mean + mean.detach()
        for i, gradient in enumerate(found):
            if gradient is not None:
                self.gradients[i] = gradient if i not in self.gradients else self.gradients[i] + gradient

    def finish(self, given: Given) -> Tensor:
        """The term, after its gradients were added to those of the leaves."""
        assert self.mean is not None
        mean = self.mean.requires_grad_()
        term = self.objective.of_mean(mean, given.progress, given.state)
        (slope,) = torch.autograd.grad(term, mean)
        for i, gradient in self.gradients.items():
            leaf, more = self.leaves[i], gradient * slope
            leaf.grad = more if leaf.grad is None else leaf.grad + more
        return term.detach()
