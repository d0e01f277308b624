"""The only file that registers torch hooks: taps on modules, what an editor may know, stopping a pass early, and
beginning it late."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor, nn

from overtone.core.errors import ModelError


@dataclass(frozen=True)
class Call:
    """What an editor may know about the forward pass under way: a pure function of the token history, so that cached
    and uncached passes agree.

    tokens: (batch, seen) int64, every token so far, padding included; real: (batch, seen) bool, False on padding;
    start: first column computed in this pass (0 without a cache), so that states have seen - start columns;
    prompt_columns: columns below this belong to the prompt (all of them when nothing is generated).
    """

    tokens: Int[Tensor, "batch seen"]
    real: Bool[Tensor, "batch seen"]
    start: int
    prompt_columns: int

    @property
    def columns(self) -> int:
        """Number of columns computed in this pass."""
        return self.tokens.shape[1] - self.start


Editor = Callable[[Tensor, Call], Tensor]
"""(states (batch, seen - start, width), call) -> the states to go on with: same shape and dtype. It must not change its
argument in place, and is called with or without gradients alike."""

Visit = Callable[[Tensor], Tensor | None]
"""What a tap does with the states that pass: returns None to leave them, or the states to go on with."""


class StopForward(Exception):
    """Raised inside a hook when every requested site was read; `HookedModel.read` catches it."""


@dataclass(frozen=True)
class Tap:
    """A place in the module tree: the `input` or `output` of a module.

    plus: a module whose input is added to what the tap shows (the residual stream between attention and MLP exists
    only inside the block: stream before the block + what attention adds). A change made there is handed on as the
    change of the addend.
    """

    module: nn.Module
    side: str
    plus: nn.Module | None = None


@contextmanager
def attached(taps: Iterable[tuple[Tap, Visit]]) -> Iterator[None]:
    """Register every visit on its tap, in order, while the block runs; all of them are removed afterwards, whatever
    happens inside. Of two visits on one tap the later one sees what the earlier one made."""
    handles: list[Any] = []
    try:
        for tap, visit in taps:
            handles += _register(tap, visit)
        yield
    finally:
        for handle in handles:
            handle.remove()


def returned(module: nn.Module, run: Callable[[], object]) -> Any:
    """What a module returns in the pass that `run` makes, which ends there."""
    seen: list[Any] = []

    def see(_module: nn.Module, _args: tuple, out: Any) -> None:
        seen.append(out)
        raise StopForward

    handle = module.register_forward_hook(see)
    try:
        with suppress(StopForward):
            run()
    finally:
        handle.remove()
    return seen[0]


@contextmanager
def beginning(after: Sequence[nn.Module], states: Tensor, like: Any) -> Iterator[None]:
    """Within, a pass begins after some blocks: they compute nothing and return the states, in the form of `like`, which
    is what a block of this model returns; hooks on them see that."""

    def through(*args: Any, **kwargs: Any) -> Any:
        return states if isinstance(like, Tensor) else type(like)((states, *like[1:]))

    try:
        for block in after:
            block.forward = through
        yield
    finally:
        for block in after:
            block.__dict__.pop("forward", None)


def _register(tap: Tap, visit: Visit) -> list[Any]:
    if tap.plus is not None:
        held: list[Tensor] = []

        def hold(module: nn.Module, args: tuple, kwargs: dict) -> None:
            held[:] = [_first_input(module, args, kwargs)]

        hold.sees_edits = True  # type: ignore[attr-defined]
        return [
            tap.plus.register_forward_pre_hook(hold, with_kwargs=True),
            tap.module.register_forward_hook(lambda module, args, out: _on_output(module, out, _on_sum(visit, held))),
        ]
    if tap.side == "output":
        return [tap.module.register_forward_hook(lambda module, args, out: _on_output(module, out, visit))]
    handle = tap.module.register_forward_pre_hook(
        lambda module, args, kwargs: _on_input(module, args, kwargs, visit), with_kwargs=True
    )
    _holds_last(tap.module)
    return [handle]


def _holds_last(module: nn.Module) -> None:
    """What remembers a block's input must see it as edited, also by an edit registered after it."""
    hooks: Any = module._forward_pre_hooks  # an OrderedDict, called in order
    for key, hook in list(hooks.items()):
        if getattr(hook, "sees_edits", False):
            hooks.move_to_end(key)


def _on_sum(visit: Visit, held: list[Tensor]) -> Visit:
    """The visit of a sum, told as a visit of the addend. A visit that changes nothing leaves the addend untouched."""

    def addend(states: Tensor) -> Tensor | None:
        total = held.pop() + states
        edited = visit(total)
        return None if edited is None else states + (edited - total)

    return addend


def _on_output(module: nn.Module, out: Any, visit: Visit) -> Any:
    """Blocks return a tensor or a tuple that starts with it, depending on the family and the library's version."""
    if isinstance(out, Tensor):
        return visit(out)
    if isinstance(out, tuple | list) and out and isinstance(out[0], Tensor):
        edited = visit(out[0])
        return None if edited is None else type(out)((edited, *out[1:]))
    raise ModelError(
        f"{type(module).__name__} returns {type(out).__name__}; a site needs a tensor or a tuple of tensors."
    )


def _first_input(module: nn.Module, args: tuple, kwargs: dict) -> Tensor:
    if args and isinstance(args[0], Tensor):
        return args[0]
    if isinstance(kwargs.get("hidden_states"), Tensor):
        return kwargs["hidden_states"]
    raise ModelError(f"{type(module).__name__} is not called with states first; its input is no site.")


def _on_input(module: nn.Module, args: tuple, kwargs: dict, visit: Visit) -> tuple[tuple, dict] | None:
    edited = visit(_first_input(module, args, kwargs))
    if edited is None:
        return None
    if args:
        return (edited, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": edited}
