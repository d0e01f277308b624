"""New noise for each batch."""

from typing import Any

from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.maintainers.base import Maintainer


class FreshNoise(Maintainer):
    """Counts the batches of a value that draws noise, so that each gets its own."""

    sliceable = True

    def after_update(self, dictionary: Autoencoder) -> None:
        """One batch more."""
        value: Any = dictionary.value
        value.batch += 1
