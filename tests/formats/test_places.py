"""Names on the hub and local paths. Without network the hub answers from its cache, laid out as it does itself."""

import pytest

from format_dictionaries import trained
from overtone.core.errors import StoreError
from overtone.formats.exchange import export_dictionary, import_dictionary
from overtone.formats.places import find


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that holds some/repo: a sparsify folder at layers.3.mlp, one at the root, and a single npz."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--some--repo" / "snapshots" / ("a" * 40)
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    snapshot.mkdir(parents=True)
    export_dictionary(trained("top_k"), snapshot / "layers.3.mlp", "sparsify")
    export_dictionary(trained("batch_top_k"), snapshot / "width_8", "gemma_scope")
    return snapshot


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("some/repo/layers.3.mlp", "sparsify"),
        ("some/repo/width_8", "gemma_scope"),
        ("some/repo/width_8/params.npz", "gemma_scope"),
    ],
)
def test_a_hub_name_leads_to_a_folder_or_a_file_in_it(cache, name, format):
    read = import_dictionary(name)
    assert read.format == format and read.dictionary.n_latents == 8
    assert find("some/repo") == cache


def test_what_the_hub_does_not_have_is_told_in_one_line(cache):
    with pytest.raises(StoreError, match=r"some/repo on the hub has no layers\.4\.mlp"):
        import_dictionary("some/repo/layers.4.mlp")
    with pytest.raises(StoreError, match=r"layers\.3\.mlp"):
        import_dictionary("some/repo")  # the repository itself is no dictionary, but holds some
    with pytest.raises(StoreError, match=r"other/repo is no local path and cannot be had from the hub: .*hf download"):
        import_dictionary("other/repo")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "nothing", "~/nothing/at/all"])
def test_a_path_that_leads_nowhere_is_no_question_to_the_hub(name):
    with pytest.raises(StoreError, match="there is no"):
        find(name)
