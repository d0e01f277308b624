"""Which latents are alive."""

import torch
from torch import Tensor

from overtone.core.asked import Asked
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.codes import positions
from overtone.dictionaries.maintainers.base import Maintainer, Observation


class Firing(Maintainer):
    """Tokens since each latent was last active; `dead` lists those beyond `window` tokens.

    Every training has one. An active latent counts whatever its sign. The list is renewed every window / 32 tokens, so
    that an accelerator is not made to wait in every step; it is asked for their number before an update and answers
    after that, so that it has work meanwhile.
    """

    per_latent = ("idle_tokens",)
    lists = ("dead",)
    sliceable = True

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self._asked: Asked | None = None

    def begin(self, dictionary: Autoencoder) -> None:
        """All alive."""
        device = dictionary.decoder.centre().device
        self.state = {
            "idle_tokens": torch.zeros(dictionary.n_latents, dtype=torch.int64, device=device),
            "dead": torch.zeros(0, dtype=torch.int64, device=device),
            "unchecked_tokens": torch.zeros((), dtype=torch.int64),
        }

    @property
    def dead(self) -> Tensor:
        """(n,) int64 latents that count as dead."""
        return self.state["dead"]

    @torch.no_grad()
    def observe(self, dictionary: Autoencoder, seen: Observation) -> None:
        """Count this batch's tokens and the latents that fired in it."""
        idle = self.state["idle_tokens"]
        idle += seen.rows
        idle.masked_fill_(seen.fired, 0)
        self.state["unchecked_tokens"] += seen.rows
        if int(self.state["unchecked_tokens"]) >= self.window / 32:
            self.state["unchecked_tokens"].zero_()
            self._asked = Asked((idle >= self.window).sum())

    @torch.no_grad()
    def after_update(self, dictionary: Autoencoder) -> None:
        """Renew the list, if that is due."""
        if self._asked is None:
            return
        number, self._asked, idle = int(self._asked.answer()), None, self.state["idle_tokens"]
        self.state["dead"] = positions(idle >= self.window, number)

    def renew(self, latents: Tensor) -> None:
        """They count as alive."""
        super().renew(latents)
        self.state["dead"] = self.dead[~torch.isin(self.dead, latents)]

    def share(self) -> float:
        """Share of latents that are dead right now, in [0, 1]."""
        return float((self.state["idle_tokens"] >= self.window).float().mean())
