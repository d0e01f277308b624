"""Sites print, parse and refuse."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.core.errors import SiteError
from overtone.core.sites import KINDS, Site, parse_sites


@settings(deadline=None)
@given(st.sampled_from(sorted(set(KINDS) - {"embedding"})), st.integers(0, 200), st.sampled_from(["", "chat-2.b"]))
def test_a_site_parses_back_from_what_it_prints(kind, layer, model):
    assert Site.parse(str(Site(kind, layer, model=model))) == Site(kind, layer, model=model)


def test_a_site_of_one_of_several_models_says_which():
    chat = Site.parse("chat:blocks.6.hook_resid_post")
    assert str(chat) == "chat:residual.6" and chat != Site("residual", 6) and chat.lens_name.startswith("blocks.6")
    assert parse_sites("base:embedding+chat:residual.6") == (Site("embedding", model="base"), chat)
    with pytest.raises(SiteError, match="not a name for a model"):
        Site.parse("a chat:residual.6")


def test_the_embedding_has_no_layer_in_its_name():
    assert str(Site("embedding")) == "embedding"
    assert Site.parse("embedding") == Site("embedding")
    with pytest.raises(SiteError, match="embedding has none"):
        Site("embedding", 3)


@pytest.mark.parametrize(
    ("foreign", "own"),
    [
        ("blocks.6.hook_resid_post", "residual.6"),
        ("blocks.6.hook_resid_pre", "residual.5"),
        ("blocks.0.hook_resid_pre", "embedding"),
        ("blocks.2.attn.hook_z", "attn_heads.2"),
        ("blocks.1.hook_mlp_out", "mlp_out.1"),
    ],
)
def test_transformer_lens_names_are_accepted_and_kept_as_alias(foreign, own):
    site = Site.parse(foreign)
    assert str(site) == own
    assert site.alias == foreign
    assert site == Site.parse(own), "an alias is no part of equality"


def test_a_mistyped_kind_is_answered_with_the_nearest_one():
    with pytest.raises(SiteError, match=r"Did you mean 'residual'"):
        Site("residul", 1)
    with pytest.raises(SiteError, match=r"residual\.6"):
        Site.parse("layer 6")


def test_several_sites_are_read_as_a_crosscoders_manifest_writes_them():
    several = (Site("residual", 3), Site("embedding"))
    assert parse_sites("+".join(map(str, several))) == several == parse_sites(["residual.3", Site("embedding")])
    assert parse_sites("blocks.3.hook_resid_post") == parse_sites(Site("residual", 3)) == (Site("residual", 3),)
    with pytest.raises(SiteError, match="several sites, and one is needed here. Give one of residual.3, embedding"):
        Site.parse("residual.3+embedding")
    with pytest.raises(SiteError, match="'resid' is not a site"):
        parse_sites("residual.3+resid")
