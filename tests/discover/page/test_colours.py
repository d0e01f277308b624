"""Behaviours keep their colour, and people with other eyes can tell them apart."""

from itertools import combinations

import numpy as np
import pytest

from overtone.discover.page.colours import FIXED, OTHERS, behaviours, colours

GROUND = ("#ffffff", "#1b1e24")  # of cards, light and dark
# Full deficiency, on linear RGB. Source: Machado, Oliveira and Fernandes 2009, table of severity 1.0.
EYES = {
    "typical": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> np.ndarray:
    """Linear RGB of a hexadecimal sRGB colour, 0..1."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio of two colours."""
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (a, b))
    return high / low


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("eye", EYES)
def test_any_two_behaviours_differ_visibly(theme, eye):
    shades = {
        name: lab(np.array(EYES[eye]) @ linear(FIXED[name][theme]))
        for name in FIXED
        if name not in ("transition", "unknown")
    }
    distances = {pair: float(np.linalg.norm(shades[pair[0]] - shades[pair[1]])) for pair in combinations(shades, 2)}
    assert {pair: d for pair, d in distances.items() if d < 9} == {}  # 2.3 is just noticeable side by side


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_colour_stands_out_from_the_ground(theme):
    ratios = {pair[theme]: contrast(pair[theme], GROUND[theme]) for pair in (*FIXED.values(), *OTHERS)}
    assert {colour: ratio for colour, ratio in ratios.items() if ratio < 3} == {}


def test_known_behaviours_keep_their_colour_whatever_else_is_there():
    assert colours(["zeal", "reflection"])["reflection"] == colours(["reflection"])["reflection"] == FIXED["reflection"]


def test_other_names_get_colours_in_order_and_start_again():
    names = [f"other {i}" for i in range(len(OTHERS) + 1)]
    found = colours(["planning", *names])
    assert [found[name] for name in names] == [*OTHERS, OTHERS[0]]


def test_behaviours_are_found_wherever_a_report_names_them():
    report = {
        "findings": [{"label": "not a behaviour"}],
        "atoms": {"points": [{"label": "transition"}, {"label": ""}]},
        "doses": [{"behaviour": "reflection", "series": [{"points": [{"rates": {"zeal": {"value": 0.1}}}]}]}],
        "features": [{"label": "", "profile": {"execution": 0.5}}],
    }
    assert behaviours(report) == ["execution", "reflection", "transition", "zeal"]
