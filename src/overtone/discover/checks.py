"""What can be told wrong before the first token is generated: layers, presets and behaviours that do not exist."""

from __future__ import annotations

from overtone.core.errors import SettingError, nearest
from overtone.discover.decompose import chosen_preset
from overtone.discover.material import chosen_sites
from overtone.discover.settings import DiscoverSettings
from overtone.discover.subject import Subject


def refuse_early(subject: Subject, settings: DiscoverSettings) -> None:
    """Return quietly if the settings fit the subject; nothing is computed or written.

    Raises SiteError for a layer that the model does not have, SettingError for a layer to steer that is not decomposed,
    a preset that is unknown or does not fit the width, or a behaviour that no step can be named.
    """
    sites, causal = chosen_sites(subject, settings), settings.causal
    layers = [site.layer for site in sites]
    if causal.layer >= 0 and causal.layer not in layers:
        raise SettingError(
            f"causal.layer={causal.layer} is not among the layers that are decomposed: {', '.join(map(str, layers))}. "
            "Add it to layers, or use -1 to choose one."
        )
    for site in sites:
        for dictionary in (settings.naming, settings.boundary):
            chosen_preset(dictionary.preset, subject.model.width(site), dictionary)
    for name in causal.behaviours:
        if name not in subject.behaviours:
            raise SettingError(
                f"causal.behaviours: no step is ever named {name!r}.{nearest(name, subject.behaviours)} "
                f"Steps are named {', '.join(subject.behaviours)}."
            )
