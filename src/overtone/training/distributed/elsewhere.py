"""What a process has of a dictionary that another one put together: what it is, and nothing of what it consists of."""

from typing import Any, NoReturn

from jaxtyping import Float
from torch import Tensor

from overtone.core.errors import CapabilityError
from overtone.dictionaries.codes import SparseCodes
from overtone.dictionaries.dictionary import Capabilities, Dictionary


class Elsewhere(Dictionary):
    """width, width_out, n_latents and origin of a dictionary that the first process holds. Everything else raises
    CapabilityError."""

    def __init__(self, width: int, n_latents: int, width_out: int, origin: dict[str, Any], who: str) -> None:
        super().__init__(width, n_latents)
        self.width_out, self.origin, self.who = width_out, origin, who

    @property
    def capabilities(self) -> Capabilities:
        """Refused."""
        self._refuse()

    def arguments(self) -> dict[str, Any]:
        """Refused."""
        self._refuse()

    def encode(self, x: Float[Tensor, "rows width"]) -> SparseCodes:
        """Refused."""
        self._refuse()

    def decode(self, codes: SparseCodes, x: Tensor | None = None) -> Float[Tensor, "rows width_out"]:
        """Refused."""
        self._refuse()

    def atoms(self) -> Float[Tensor, "latents width"]:
        """Refused."""
        self._refuse()

    def atom_norms(self) -> Float[Tensor, " latents"]:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise CapabilityError(
            f"this is {self.who}; with split='latents' only the first one puts the dictionary together, since it may "
            "not fit all of them. Save it there (`if world.first: fitted.save(folder)`) and load it where it is "
            "needed, or use split='rows', with which every process has it."
        )
