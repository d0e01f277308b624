"""The README of a dictionary's folder: what it is, how it was made, how well it does, how to use it."""

from collections.abc import Mapping

from overtone.core.catalogue import entries
from overtone.dictionaries.dictionary import Dictionary

MEANING = {
    "error": "share of the variance that the reconstruction misses (0 is perfect), on rows it was trained on",
    "l0": "mean number of active latents per row",
    "dead_share": "share of latents active in none of these rows",
    "tokens_per_s": "rows per second while training",
}


def readme(
    dictionary: Dictionary, *, command: str, names: Mapping[str, str], figures: Mapping[str, float], seed: int
) -> str:
    """A page in Markdown. command: what made it; names: what it was trained on; figures: of those in MEANING."""
    kind = dictionary.origin.get("preset", dictionary.kind)
    entry = entries("dictionaries").get(kind)
    told = [f"{entry.summary} Source: {entry.paper or 'a classic'}."] if entry else []
    knobs = ", ".join(f"{name} = {value}" for name, value in dictionary.origin.get("settings", {}).items())
    able = [name for name, value in dictionary.capabilities.to_dict().items() if value]
    lines = [
        f"# {kind}: {dictionary.n_latents} latents for states of width {dictionary.width}", "",
        *told, "", f"- settings: {knobs}", f"- capabilities: {', '.join(able)}",
        *(f"- {what}: {name}" for what, name in names.items()), f"- seed: {seed}", "",
        "Made by", "", "```sh", command, "```", "", "| figure | value | meaning |", "|---|---|---|",
        *(f"| {name} | {value:.4g} | {MEANING[name]} |" for name, value in figures.items()), "",
        "Use it", "", "```python", "from overtone import load_dictionary", "",
        'dictionary = load_dictionary("this/folder")', "codes = dictionary.encode(states)  # (rows, "
        f"{dictionary.width}) states", "```", "",
        "`weights.safetensors` holds the numbers, `dictionary.json` how they belong together, `record.json` the course",
        "of the training, `manifest.json` sources and hashes.", "",
    ]  # fmt: skip
    return "\n".join(lines)
