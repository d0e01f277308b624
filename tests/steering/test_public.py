"""The room's public names exist, and listing edits loads no model library."""

import subprocess
import sys

import pytest

import overtone.steering as room


@pytest.mark.parametrize("name", room.PUBLIC)
def test_a_public_name_exists(name):
    assert getattr(room, name).__module__ == room.PUBLIC[name]


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match="no name 'Steer'.*Steering"):
        _ = room.Steer


def test_listing_the_edits_does_not_load_transformers():
    code = "import sys; from overtone.core.catalogue import entries; entries('edits'); assert 'torch' in sys.modules"
    code += "; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
