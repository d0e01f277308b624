"""The catalogue of architectures: every file is found, every family has its miniature."""

from models.miniatures import TABLE, build
from overtone.core.catalogue import entries
from overtone.models.adapter import by_model_type


def test_every_family_has_a_miniature():
    tested = {build(name).config.model_type for name in TABLE}
    for entry in entries("adapters").values():
        assert tested & set(entry.facts["model_types"]), entry.name


def test_every_miniature_is_described_by_its_own_family():
    for name in TABLE:
        assert by_model_type(build(name)) is not None, name


def test_no_model_type_is_claimed_twice():
    claimed = [model_type for entry in entries("adapters").values() for model_type in entry.facts["model_types"]]
    assert len(claimed) == len(set(claimed))
