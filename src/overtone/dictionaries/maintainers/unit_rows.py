"""Decoder rows of length one."""

import torch
from torch.linalg import vecdot

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer


class UnitRows(Maintainer):
    """Removes the gradient's component along each decoder row before the update and renormalises the row after it."""

    sliceable = True

    @torch.no_grad()
    def begin(self, dictionary: Autoencoder) -> None:
        """Start from unit rows."""
        self.after_update(dictionary)

    @torch.no_grad()
    def before_update(self, dictionary: Autoencoder) -> None:
        """g_i <- g_i - <g_i, d_i> d_i."""
        rows = dictionary.decoder.rows()
        if rows.grad is not None:
            rows.grad.addcmul_(rows, vecdot(rows.grad, rows).unsqueeze(1), value=-1)

    @torch.no_grad()
    def after_update(self, dictionary: Autoencoder) -> None:
        """d_i <- d_i / ||d_i||."""
        rows = dictionary.decoder.rows()
        rows.div_(rows.norm(dim=1, keepdim=True).clamp_min_(1e-12))
