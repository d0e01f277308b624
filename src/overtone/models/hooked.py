"""A model with named sites: read states, edit them while it runs, decode with a cache, continue from a site."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from overtone.core.errors import DataError, ModelError, SettingError, ShapeError, SiteError
from overtone.core.sites import KINDS, Site
from overtone.models import generic
from overtone.models.adapter import Adapter, by_model_type, submodule
from overtone.models.decoding import KeyValues, new_cache
from overtone.models.fingerprint import fingerprint
from overtone.models.hooks import Call, Editor, StopForward, Tap, Visit, attached, beginning, returned

__all__ = ["Call", "Editor", "HookedModel"]


class HookedModel:
    """A transformer with named sites (`overtone.core.sites`). Made by `load` or `wrap`; leaves the model as it was.

    model: the module; tokenizer: its tokenizer or None; name: what it was loaded from; adapter: where its sites are;
    n_layers: number of blocks; is_causal: states depend on earlier tokens only; vocab_size: number of token ids.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, name: str, adapter: Adapter) -> None:
        self.model, self.tokenizer, self.name, self.adapter = model, tokenizer, name or type(model).__name__, adapter
        self._blocks = list(submodule(model, adapter.layers, "layers").children())
        self.n_layers = len(self._blocks)
        if not self._blocks:
            raise ModelError(f"layers={adapter.layers!r} holds no blocks. Give the path of the list of blocks.")
        for field, path in adapter.block_paths.items():
            submodule(self._blocks[0], path, field)
        self._readout = [submodule(model, path, "final_norm or head") for path in adapter.readout]
        self._accepts = frozenset(inspect.signature(model.forward).parameters)
        self._call: Call | None = None  # the pass under way; None between passes
        self._widths: dict[Site, int] = {}
        self._muted = False

    @classmethod
    def load(cls, name_or_folder: str | Path, *, dtype: str = "float32", device: str = "cpu") -> Self:
        """A model and its tokenizer from a folder or, where there is a network or a local copy, from the hub.

        dtype: float32, bfloat16 or float16. Raises ModelError naming the remedy if the folder is missing or holds no
        model, or if the hub cannot be reached and there is no local copy; SettingError for another dtype.
        """
        from overtone.models.loading import load_model

        model, tokenizer, name = load_model(name_or_folder, dtype=dtype, device=device)
        return cls.wrap(model, tokenizer, name=name)

    @classmethod
    def wrap(cls, model: nn.Module, tokenizer: Any = None, *, name: str = "", adapter: Adapter | None = None) -> Self:
        """A model that is in memory already; put in evaluation mode first if its dropout should be off.

        adapter: where its sites are, for an architecture the catalogue does not know. Raises ModelError naming the
        paths to give if they cannot be found.
        """
        known = adapter or by_model_type(model)
        if known is not None:
            return cls(model, tokenizer, name, known)
        guess = cls(model, tokenizer, name, generic.by_structure(model))
        return cls(model, tokenizer, name, generic.verified(guess))

    # ------------------------------------------------------------------------------------------------------- facts
    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of architecture and weights: equal after save and load, and in every dtype."""
        return fingerprint(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def is_causal(self) -> bool:
        """True if the state at a token depends on earlier tokens only (a decoder)."""
        return self.adapter.is_causal

    @property
    def takes_padding(self) -> bool:
        """True if the model can be told which tokens are padding."""
        return "attention_mask" in self._accepts

    @property
    def vocab_size(self) -> int:
        """Number of token ids the model accepts."""
        embeddings = getattr(self.model, "get_input_embeddings", lambda: None)()
        if embeddings is not None:
            return int(embeddings.weight.shape[0])
        return next((m.num_embeddings for m in self.model.modules() if isinstance(m, nn.Embedding)), 2**31)

    @property
    def max_tokens(self) -> int | None:
        """Longest text the model was made for, in tokens; None if it does not say."""
        return getattr(getattr(self.model, "config", None), "max_position_embeddings", None)

    def need_tokenizer(self) -> Any:
        """The tokenizer. Raises ModelError with the remedy where there is none."""
        if self.tokenizer is None:
            raise ModelError(
                f"{self.name} has no tokenizer. Save it beside the model, or give HookedModel.wrap(..., tokenizer)."
            )
        return self.tokenizer

    # ------------------------------------------------------------------------------------------------------- sites
    def sites(self) -> list[Site]:
        """Every site of this model, layer by layer."""
        kinds = [kind for kind in KINDS if kind != "embedding" and not self._absent(kind)]
        return [Site("embedding"), *(Site(kind, layer) for layer in range(self.n_layers) for kind in kinds)]

    def check(self, site: Site | str) -> Site:
        """The site if this model has it. Raises SiteError naming the allowed range, or why there is none."""
        site = Site.parse(site)
        if site.model:
            own = replace(site, model="")
            raise SiteError(f"{site} is a site of one of several models. Ask {self.name} for its own: {own}.")
        if why := self._absent(site.kind):
            raise SiteError(f"{self.name} has no {site.kind}: {why}")
        if site.layer >= self.n_layers:
            raise SiteError(
                f"{site}: {self.name} has {self.n_layers} layers. "
                f"Use {site.kind}.0 to {site.kind}.{self.n_layers - 1} (layers count from 0)."
            )
        return site

    def width(self, site: Site | str) -> int:
        """Number of coordinates of a state at the site, measured once on one token. Raises SiteError as `check`."""
        site = self.check(site)
        if site not in self._widths:
            with self._unedited():
                states = self.read(torch.zeros(1, 1, dtype=torch.int64), None, [site])
            self._widths[site] = states[site].shape[-1]
        return self._widths[site]

    @contextmanager
    def _unedited(self) -> Iterator[None]:
        muted, self._muted = self._muted, True
        try:
            yield
        finally:
            self._muted = muted

    @cached_property
    def _block_returns(self) -> Any:
        """What a block returns, as it does on one token."""
        call = self._start(torch.zeros(1, 1, dtype=torch.int64), None, None, None)
        with torch.no_grad(), self._unedited():
            return returned(self._blocks[0], lambda: self._run(call))

    def module(self, site: Site | str) -> nn.Module:
        """The module whose input or output the site is."""
        return self._tap(self.check(site)).module

    def _absent(self, kind: str) -> str:
        """Why this model has no such kind of site; "" if it has."""
        if kind in ("residual", "embedding"):
            return ""
        if kind in self.adapter.absent:
            return self.adapter.absent[kind]
        needed = "attn_out" if kind == "residual_mid" and not self.adapter.residual_mid else kind
        return "" if self.adapter.path(needed) else f"its adapter names no module for it. Give Adapter({needed}=...)."

    def _tap(self, site: Site) -> Tap:
        if site.kind == "embedding":
            return Tap(self._blocks[0], "input")
        block = self._blocks[site.layer]
        if site.kind == "residual":
            return Tap(block, "output")
        if site.kind == "residual_mid" and not self.adapter.residual_mid:
            return Tap(submodule(block, self.adapter.path("attn_out"), "attn_out"), "output", plus=block)
        side = "output" if site.kind in ("attn_out", "mlp_out", "residual_mid") else "input"
        return Tap(submodule(block, self.adapter.path(site.kind), site.kind), side)

    # ---------------------------------------------------------------------------------------------- reading, editing
    def read(
        self,
        tokens: Int[Tensor, "batch seq"],
        real: Bool[Tensor, "_ _"] | None,
        sites: Sequence[Site],
        *,
        prompt_columns: int | None = None,
    ) -> dict[Site, Float[Tensor, "batch seq width"]]:
        """States at several sites in one pass that ends at the deepest of them; edits in force are seen.

        tokens: token ids; real: False on padding, left or right (None: no padding); prompt_columns: as in `forward`.
        Returns (batch, seq, width) per site, without gradient; what stands on padding means nothing. Raises SiteError
        as `check`, DataError for ids outside the vocabulary.
        """
        wanted = [self.check(site) for site in sites]
        if not wanted:
            return {}
        call = self._start(tokens, real, None, prompt_columns)
        found: dict[Site, Tensor] = {}

        def keep(site: Site, states: Tensor) -> None:
            found[site] = self._rows(states).detach().clone()  # a later module may change its input in place
            if len(found) == len(set(wanted)):
                raise StopForward

        taps = [(self._tap(site), partial(keep, site)) for site in dict.fromkeys(wanted)]
        with torch.no_grad(), attached(taps), suppress(StopForward):
            self._run(call)
        _require_called(wanted, found)
        return {site: found[site] for site in wanted}

    @contextmanager
    def editing(self, editors: Mapping[Site, Editor | Sequence[Editor]]) -> Iterator[Self]:
        """Within the block every pass goes on with what the editors make of the states at their sites.

        Nested blocks stack: inner editors see what outer ones made. Everything is restored at the end, also after an
        exception. Raises SiteError as `check`; in a pass, ShapeError if an editor changes shape or dtype.
        """
        taps: list[tuple[Tap, Visit]] = []
        for name, given in editors.items():
            site = self.check(name)
            chain = tuple(given) if isinstance(given, Sequence) else (given,)
            taps.append((self._tap(site), partial(self._edit, site, chain)))
        with attached(taps):
            yield self

    def _edit(self, site: Site, chain: tuple[Editor, ...], states: Tensor) -> Tensor | None:
        if self._muted:
            return None
        if self._call is None:
            raise ModelError(
                "edits are in force: call the HookedModel (forward, logits, read), not the module inside it."
            )
        rows = given = self._rows(states)
        for editor in chain:
            before = None if rows.is_inference() else rows._version
            edited = editor(rows, self._call)
            if not isinstance(edited, Tensor) or edited.shape != rows.shape or edited.dtype != rows.dtype:
                got = f"{tuple(edited.shape)} {edited.dtype}" if isinstance(edited, Tensor) else type(edited).__name__
                raise ShapeError(f"editor at {site}: expected {tuple(rows.shape)} {rows.dtype}, got {got}.")
            if before is not None and rows._version != before:
                raise SettingError(
                    f"editor at {site} changed the states it was given in place. Return new ones instead."
                )
            rows = edited
        return None if rows is given else rows.reshape(states.shape)

    def _rows(self, states: Tensor) -> Tensor:
        """States as (batch, columns, width); some blocks flatten the first two."""
        call = self._call
        assert call is not None
        return states if states.ndim == 3 else states.reshape(call.tokens.shape[0], call.columns, -1)

    # ------------------------------------------------------------------------------------------------------ running
    def logits(
        self,
        tokens: Int[Tensor, "batch seq"],
        real: Bool[Tensor, "_ _"] | None = None,
        *,
        prompt_columns: int | None = None,
        states: Mapping[Site, Float[Tensor, "_ _ _"]] | None = None,
    ) -> Float[Tensor, "batch seq vocabulary"]:
        """Logits at every token, without a cache and without gradient; edits in force apply. Encoders too.

        prompt_columns: as in `forward`, so that edits see what they saw while the text was decoded. states: what `read`
        gave for the same tokens without edits; the pass begins at the deepest `residual` site among them, and edits
        before it are not seen. Raises ModelError if the model has no vocabulary head, DataError for ids outside the
        vocabulary.
        """
        self._require_head()
        with torch.no_grad(), self._begun(states or {}, tokens):
            return _logits(self._run(self._start(tokens, real, None, prompt_columns)))

    def forward(
        self,
        tokens: Int[Tensor, "batch seen"],
        real: Bool[Tensor, "_ _"] | None = None,
        *,
        cache: KeyValues | None = None,
        prompt_columns: int | None = None,
        last_only: bool = False,
        states: Mapping[Site, Float[Tensor, "_ _ _"]] | None = None,
    ) -> tuple[Float[Tensor, "batch columns vocabulary"], KeyValues]:
        """One step of cached decoding, without gradient; edits in force apply.

        tokens, real: the full history, padding included. With the cache of the step before only the new columns are
        run. prompt_columns: how many columns are prompt (default: all); editors may ask. last_only: logits of the
        last column only. states: of the new columns, as in `logits`; the cache of the blocks left out is not extended.
        Returns the logits of the columns run and the cache, extended in place. Raises ModelError for encoders and
        models without head, ShapeError if cache and history, or states and new columns, do not fit.
        """
        self._require_head()
        if not self.is_causal:
            raise ModelError(f"{self.name} is an encoder: it does not generate. Use read(...) or logits(...).")
        call = self._start(tokens, real, cache, prompt_columns)
        kept = cache or KeyValues(new_cache(self.model), 0, call.tokens.shape[0])
        with torch.no_grad(), self._begun(states or {}, call.tokens[:, call.start :]):
            out = self._run(call, past=kept.past, last_only=last_only)
        kept.columns = call.tokens.shape[1]
        return _logits(out), kept

    def logits_with(
        self,
        tokens: Int[Tensor, "batch seq"],
        real: Bool[Tensor, "_ _"] | None,
        site: Site,
        replace: Callable[[Tensor], Tensor],
        *,
        states: Mapping[Site, Float[Tensor, "_ _ _"]] | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "batch columns vocabulary"]:
        """Logits of a pass that goes on from `replace(states)` at a site, differentiable in what `replace` closes over.

        The part before the site runs without gradient; the states (batch, seq, width) are handed over detached.
        states: as in `logits`; those of later sites are not used. Parameters of the model take no part: no gradient
        reaches them, with `backward` or `torch.autograd.grad`.
        """
        site = self.check(site)
        self._require_head()

        def swap(states: Tensor) -> Tensor:
            rows = self._rows(states).detach()
            torch.set_grad_enabled(True)  # undone by no_grad below
            made = replace(rows)
            if made.shape != rows.shape:
                raise ShapeError(f"replace at {site}: expected {tuple(rows.shape)}, got {tuple(made.shape)}.")
            return made.reshape(states.shape)

        call = self._start(tokens, real, None, None)
        begun = self._begun(
            {s: rows for s, rows in (states or {}).items() if s == site or s.layer < site.layer}, tokens
        )
        with torch.no_grad(), _frozen(self.model), begun, attached([(self._tap(site), swap)]):
            return _logits(self._run(call, last_only=last_only))

    def probed(
        self, tokens: Int[Tensor, "batch seq"], real: Bool[Tensor, "_ _"] | None, sites: Sequence[Site], *,
        end: Site | None = None,
    ) -> tuple[Tensor, dict[Site, Tensor], dict[Site, Tensor]]:  # fmt: skip
        """(logits, states, probes) of a whole pass in which a probe, zeros, is added to the states at every site.

        Logits are differentiable in the probes: what a loss's gradient is with respect to probes[site], it is with
        respect to the states there, (batch, seq, width), those of later sites moving along. Parameters take no part.
        end: the states at this site, (batch, seq, width), take the place of logits. Raises SiteError as `read`,
        ModelError if there are no logits.
        """
        if end is None:
            self._require_head()
        wanted = dict.fromkeys(self.check(site) for site in sites)
        states: dict[Site, Tensor] = {}
        probes: dict[Site, Tensor] = {}
        ended: list[Tensor] = []

        def add(site: Site, seen: Tensor) -> Tensor:
            rows = self._rows(seen)
            states[site] = rows.detach().clone()
            probes[site] = torch.zeros_like(rows, requires_grad=True)
            return (rows + probes[site]).reshape(seen.shape)

        call = self._start(tokens, real, None, None)
        taps: list[tuple[Tap, Callable[[Tensor], Tensor | None]]]
        taps = [(self._tap(site), partial(add, site)) for site in wanted]
        if end is not None:  # after the probes, so that it sees one at its own site
            taps.append((self._tap(self.check(end)), lambda seen: ended.append(self._rows(seen))))
        with torch.enable_grad(), _frozen(self.model), attached(taps):
            out = self._run(call)
        _require_called(wanted, states)
        outcome = _logits(out) if end is None else ended[0]
        return outcome, {site: states[site] for site in wanted}, {site: probes[site] for site in wanted}

    def _begun(self, states: Mapping[Site, Tensor], tokens: Tensor) -> AbstractContextManager[None]:
        """Within, a pass begins at the deepest residual site whose states are known."""
        for site, rows in states.items():
            expected = (*tokens.shape, self.width(site))
            if rows.shape != expected:
                raise ShapeError(f"states at {site}: expected {expected}, as read gives them, got {tuple(rows.shape)}.")
        known = {site.layer: rows for site, rows in states.items() if site.kind == "residual"}
        if not known:
            return nullcontext()
        return beginning(self._blocks[: max(known) + 1], known[max(known)], self._block_returns)

    def unembed(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """Logits that rows of the residual stream would give after the last block (logit lens: final norm + head).

        Source: nostalgebraist, "interpreting GPT: the logit lens" (2020). Raises ModelError without a head.
        """
        self._require_head()
        adapter = self.adapter
        if why := adapter.absent.get("unembed"):
            raise ModelError(f"{self.name} has no logit lens: {why}")
        rows = rows.to(self.device)
        for module in self._readout:
            rows = module(rows)
        logits = rows * adapter.logit_scale
        return logits if not adapter.softcap else adapter.softcap * torch.tanh(logits / adapter.softcap)

    def _require_head(self) -> None:
        if not self.adapter.head:
            raise ModelError(
                f"{self.name} has no vocabulary head, so no logits. Load the model with its language head."
            )

    def _start(self, tokens: Tensor, real: Tensor | None, cache: KeyValues | None, prompt_columns: int | None) -> Call:
        """The call of a pass, its inputs checked and moved to the model's device."""
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise DataError(f"expected token ids of shape (batch, seq), at least one each; got {tuple(tokens.shape)}.")
        real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
        if real.shape != tokens.shape:
            raise ShapeError(f"real: expected the shape of tokens {tuple(tokens.shape)}, got {tuple(real.shape)}.")
        start = 0
        if cache is None:
            low, high = int(tokens.min()), int(tokens.max())
            if low < 0 or high >= self.vocab_size:
                raise DataError(
                    f"token ids run from {low} to {high}; {self.name} knows 0 to {self.vocab_size - 1}. "
                    "Use the tokenizer that belongs to this model."
                )
        else:
            start = cache.columns
            if tokens.shape[0] != cache.rows or tokens.shape[1] <= start:
                raise ShapeError(
                    f"the cache holds {cache.rows} rows of {start} columns; tokens is the full history with new "
                    f"columns at its end, got {tuple(tokens.shape)}."
                )
        columns = tokens.shape[1] if prompt_columns is None else prompt_columns
        return Call(tokens.to(self.device), real.to(self.device), start, columns)

    def _run(self, call: Call, *, past: Any = None, last_only: bool = False) -> Any:
        options: dict[str, Any] = {"use_cache": past is not None} if "use_cache" in self._accepts else {}
        if past is not None:
            options["past_key_values"] = past
        if self.adapter.position_offset or not bool(call.real.all()):
            options |= self._padding(call)
        if last_only and "logits_to_keep" in self._accepts:
            options["logits_to_keep"] = 1
        before, self._call = self._call, call
        try:
            return self.model(call.tokens[:, call.start :], **options)
        except IndexError as error:
            longest, most = int(call.real.sum(1).max()), self.max_tokens
            if most is None or longest <= most:
                raise
            raise DataError(f"a row has {longest} tokens; {self.name} takes at most {most}. Cut the texts.") from error
        finally:
            self._call = before

    def _padding(self, call: Call) -> dict[str, Tensor]:
        """Attention mask and position ids: a row's first real token is at position 0 wherever it stands."""
        why = self.adapter.absent.get("padding") or ("" if self.takes_padding else "it takes no attention_mask.")
        if why:
            raise ModelError(f"rows for {self.name} cannot be padded: {why} Pass rows of one length.")
        options = {"attention_mask": call.real.long()}
        if "position_ids" in self._accepts:
            positions = (call.real.long().cumsum(1) - 1).clamp_min(0)[:, call.start :]
            options["position_ids"] = positions + self.adapter.position_offset
        return options


def _require_called(wanted: Iterable[Site], found: Mapping[Site, Tensor]) -> None:
    missed = [str(site) for site in wanted if site not in found]
    if missed:
        raise SiteError(f"{', '.join(missed)}: the module was not called in this pass. Check the adapter's paths.")


def _logits(out: Any) -> Tensor:
    """Transformers return an output object, plain modules a tensor or a tuple that starts with it."""
    out = getattr(out, "logits", out)
    return out if isinstance(out, Tensor) else out[0]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Parameters stay out of the graph built within; their requires_grad is as before afterwards."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
