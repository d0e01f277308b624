"""Decoder rows of length one."""

from torch import Tensor

from overtone.core.errors import CapabilityError
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.kernels.dispatch import kernels_for
from overtone.dictionaries.maintainers.base import Maintainer


class UnitRows(Maintainer):
    """Removes the gradient's component along each decoder row before the update and renormalises the row after it:
    g_i <- g_i - <g_i, d_i> d_i, d_i <- d_i / ||d_i||."""

    sliceable = True

    def begin(self, dictionary: Autoencoder) -> None:
        """Start from unit rows. Raises CapabilityError where rows are made of other parameters, so that no optimiser
        could keep them so."""
        rows = dictionary.decoder.rows()
        if not any(rows is parameter for parameter in dictionary.parameters()):
            kind = dictionary.decoder.kind
            raise CapabilityError(
                f"UnitRows: the rows of {kind} are no parameter of their own, so they cannot be kept at length one. "
                "Leave it out of the preset's maintainers, or use a decoder whose rows are one, as decoder.linear."
            )
        kernels_for(rows.device).update.to_length_one(rows)

    def unit_rows(self, dictionary: Autoencoder) -> Tensor:
        """Those of the decoder."""
        return dictionary.decoder.rows()
