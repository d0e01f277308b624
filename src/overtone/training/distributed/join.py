"""Two ways to share a training: `rows` of each batch, or `latents` of the dictionary."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from overtone.core.errors import nearest
from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.slices import making
from overtone.training.distributed.latents import LatentShare, slice_of
from overtone.training.distributed.rows import RowShare
from overtone.training.distributed.share import Alone, Share
from overtone.training.distributed.world import World

SPLITS = {"rows": RowShare, "latents": LatentShare}


def join(split: str | None) -> World | None:
    """The processes to train with, None if `split` is None. Raises SettingError for another split than there is, or if
    this process was started alone."""
    require(
        split is None or split in SPLITS,
        f"split={split!r}: processes share the 'rows' of a batch or the 'latents'.{nearest(str(split), SPLITS)}",
    )
    return None if split is None else World.join()


@contextmanager
def company(split: str | None) -> Iterator[World | None]:
    """As `join`; at the end this process parts from the others."""
    world = join(split)
    try:
        yield world
    finally:
        if world is not None:
            world.leave()


@dataclass(frozen=True)
class Sharing:
    """How the processes share trainings, and on which device this one works."""

    split: str | None
    world: World | None
    device: str

    def made(self, n_latents: int, make: Callable[[], Dictionary]) -> Dictionary:
        """What `make` makes, a dictionary of so many latents: as much of it as this process is going to have."""
        if self.world is None or self.split != "latents":
            return make()
        with making(slice_of(self.world, n_latents)):
            return make()

    def share(self, dictionary: Autoencoder) -> Share:
        """What this process has of a training. Raises CapabilityError if the dictionary cannot be shared that way."""
        if self.split is None or self.world is None:
            share = Alone(dictionary)
        else:
            share = SPLITS[self.split](dictionary, self.world)
        share.model.to(self.device).train()
        return share
