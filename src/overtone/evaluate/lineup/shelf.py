"""Finished trainings of lineups on disk: each in a folder of its own, named by all that it depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overtone.core.artifacts import library_version, read_manifest
from overtone.core.errors import StoreError
from overtone.dictionaries.storage import KIND, load_dictionary, save_dictionary
from overtone.evaluate.compare import Sample, Trial
from overtone.evaluate.lineup.entrants import Entrant


@dataclass(frozen=True)
class Order:
    """One training of a lineup: who, on which seed's rows (their `fingerprint`), and how; n_tokens, batch_rows, lr,
    device as for `lineup`."""

    entrant: Entrant
    seed: int
    rows: str
    n_tokens: int
    batch_rows: int
    lr: float | None
    device: str = "cpu"

    @property
    def label(self) -> str:
        """What it is called while it runs."""
        k = "" if self.entrant.k is None else f" k={self.entrant.k}"
        return f"{self.entrant.name}{k}, seed {self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """All that its outcome depends on, as plain data."""
        preset = self.entrant.preset
        found = {
            "preset": preset.name, "settings": preset.to_dict(), "seed": self.seed, "rows": self.rows,
            "n_tokens": self.n_tokens, "batch_rows": self.batch_rows, "lr": self.lr, "version": library_version(),
        }  # fmt: skip
        return found if self.device == "cpu" else {**found, "device": self.device}


class Shelf:
    """Trials by order in a folder; what is damaged there counts as absent and is replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, order: Order) -> Path:
        """The folder of an order, whether it is there or not."""
        text = json.dumps(order.identity, sort_keys=True)
        return self.folder / f"{order.entrant.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def has(self, order: Order) -> bool:
        """Whether it was finished and is whole."""
        try:
            return "measures" in read_manifest(self.place(order), KIND).facts
        except StoreError:
            return False

    def put(self, order: Order, trial: Trial) -> None:
        """Keep a finished training, atomically."""
        facts = {"order": order.identity, "measures": dict(trial.measures), "seconds": trial.seconds}
        save_dictionary(trial.dictionary, self.place(order), seed=order.seed, sources={"rows": order.rows}, facts=facts)

    def get(self, order: Order) -> Trial:
        """A training that is there. Raises StoreError if it is not, or is damaged."""
        place = self.place(order)
        facts = read_manifest(place, KIND).facts
        return Trial(order.entrant.name, order.seed, load_dictionary(place), facts["measures"], facts["seconds"])


def fingerprint(rows: Sample) -> str:
    """Hash of every number of a sample: 16 hex digits."""
    digest = hashlib.sha256()
    for part in (rows.train, rows.held_out, rows.truth, rows.g):
        if part is not None:
            part = part.detach().cpu().contiguous()
            digest.update(f"{tuple(part.shape)} {part.dtype}".encode())
            digest.update(part.float().numpy().tobytes())
    return digest.hexdigest()[:16]
