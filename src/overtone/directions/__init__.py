"""Directions: unit vectors with a place and an origin, their algebra, their finders and their controls."""

from overtone.directions.atoms import centroid_of_atoms, from_atom
from overtone.directions.components import principal_components, principal_of_pairs
from overtone.directions.confidence import Anchored, Searched, SearchSettings, mean_entropy, search
from overtone.directions.controls import random_like, shuffled
from overtone.directions.direction import Direction, load_directions, save_directions, unit_direction
from overtone.directions.interactions import from_interaction, from_linear_parts
from overtone.directions.means import matched_mean_difference, mean_difference, seal
from overtone.directions.probes import probe
from overtone.directions.writing import written_directions

__all__ = [
    "Anchored", "Direction", "SearchSettings", "Searched", "centroid_of_atoms", "from_atom", "from_interaction",
    "from_linear_parts", "load_directions", "matched_mean_difference", "mean_difference", "mean_entropy",
    "principal_components", "principal_of_pairs", "probe", "random_like", "save_directions", "seal", "search",
    "shuffled", "unit_direction", "written_directions",
]  # fmt: skip
