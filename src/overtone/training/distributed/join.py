"""Two ways to share a training: `rows` of each batch, or `latents` of the dictionary."""

from collections.abc import Iterator
from contextlib import contextmanager

from overtone.core.errors import nearest
from overtone.core.settings import require
from overtone.dictionaries.autoencoder import Autoencoder
from overtone.training.distributed.latents import LatentShare
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


def share_of(dictionary: Autoencoder, split: str | None, world: World | None) -> Share:
    """What this process has of a training. Raises CapabilityError if the dictionary cannot be shared that way."""
    return Alone(dictionary) if split is None or world is None else SPLITS[split](dictionary, world)
