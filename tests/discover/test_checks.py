"""Mistakes that settings alone reveal are told before a token is generated or a folder made."""

import pytest

from overtone.core.errors import SettingError, SiteError
from overtone.discover.checks import refuse_early
from overtone.discover.pipeline import discover
from overtone.discover.settings import CausalSettings, DictionarySettings

MISTAKES = [
    ({"layers": (1, 3)}, SiteError, "residual.0 to residual.2"),
    ({"layers": (0, 1), "causal": CausalSettings(layer=2)}, SettingError, "0, 1"),
    ({"naming": DictionarySettings(preset="topk")}, SettingError, "Did you mean 'top_k'"),
    ({"boundary": DictionarySettings(preset="relu", anchor="next")}, SettingError, "Did you mean 'relu_l1'"),
    ({"causal": CausalSettings(behaviours=("reflexion",))}, SettingError, "Did you mean 'reflection'"),
]


def test_settings_that_fit_pass(found):
    refuse_early(found.subject, found.settings)
    refuse_early(found.subject, found.settings.replaced(layers=(2,), causal=CausalSettings(layer=2)))


@pytest.mark.parametrize(("changes", "error", "said"), MISTAKES)
def test_a_mistake_is_told_with_what_is_allowed(found, changes, error, said):
    with pytest.raises(error, match=said):
        refuse_early(found.subject, found.settings.replaced(**changes))


@pytest.mark.parametrize(("changes", "error", "said"), MISTAKES)
def test_such_a_mistake_writes_nothing(found, tmp_path, changes, error, said):
    with pytest.raises(error, match=said):
        discover(found.settings.replaced(**changes), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
