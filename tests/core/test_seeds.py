"""Seeds depend on what they are for and on nothing else."""

import hashlib

import torch

from overtone.core.seeds import derive, numpy_generator, torch_generator


def test_equal_names_give_equal_numbers_and_other_names_others():
    assert derive(1, "a", 2) == derive(1, "a", 2)
    assert len({derive(s, n) for s in (0, 1) for n in ("a", "b", ("a", "b"))}) == 6
    torch.testing.assert_close(
        torch.rand(3, generator=torch_generator(0, "x")), torch.rand(3, generator=torch_generator(0, "x"))
    )
    assert numpy_generator(0, "x").random() != numpy_generator(0, "y").random()


def test_a_derived_seed_is_the_same_on_every_machine():
    assert 0 <= derive(0, "fixed") < 2**63
    assert derive(0) == int.from_bytes(hashlib.sha256(b"0").digest()[:8], "big") >> 1


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    torch_generator(0, "x")
    assert torch.equal(before, torch.get_rng_state())
