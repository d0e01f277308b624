"""Decoder rows of length one."""

from torch import Tensor

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.maintainers.base import Maintainer


class UnitRows(Maintainer):
    """Removes the gradient's component along each decoder row before the update and renormalises the row after it:
    g_i <- g_i - <g_i, d_i> d_i, d_i <- d_i / ||d_i||."""

    sliceable = True

    def begin(self, dictionary: Autoencoder) -> None:
        """Start from unit rows."""
        rows = dictionary.decoder.rows()
        kernels_for(rows.device).update.to_length_one(rows)

    def unit_rows(self, dictionary: Autoencoder) -> Tensor:
        """Those of the decoder."""
        return dictionary.decoder.rows()
