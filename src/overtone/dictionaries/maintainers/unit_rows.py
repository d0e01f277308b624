"""Decoder rows of length one."""

import torch
from torch.linalg import vecdot

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer

BLOCK = 2**18  # numbers at a time on a CPU, so that their product stays in the cache


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
        if rows.grad is None:
            return
        size = max(1, BLOCK // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
        for grad, row in zip(rows.grad.split(size), rows.split(size), strict=True):
            grad.addcmul_(row, vecdot(grad, row).unsqueeze(1), value=-1)

    @torch.no_grad()
    def after_update(self, dictionary: Autoencoder) -> None:
        """d_i <- d_i / ||d_i||."""
        rows = dictionary.decoder.rows()
        rows.div_(rows.norm(dim=1, keepdim=True).clamp_min_(1e-12))
