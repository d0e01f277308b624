"""What every selection is compared with, and on what."""

import torch

EXACT = {"highest": 1e-5, "high": 2.0**-10}  # of products on a GPU, in shares of the lengths


def states_and_matrix(rows, width, latents, scale=1.0):
    generator = torch.Generator().manual_seed(rows + 31 * width + 977 * latents)
    x = torch.randn(rows, width, generator=generator) * scale
    weight = torch.randn(latents, width, generator=generator) * torch.rand(latents, 1, generator=generator)
    return x, weight, torch.randn(latents, generator=generator)


def check(found, x, weight, bias, rule, two_sided, exact=1e-5):
    """The places hold the exact values, no place left out beats one that is there, and the number is right. exact: by
    which share of the lengths products may be wrong."""
    support, u = found.support, found.u
    assert found.lengths is None or torch.allclose(found.lengths, x.norm(dim=1), rtol=1e-5, atol=0)
    truth = x.double() @ weight.double().T + bias.double()
    tolerance = exact * (1 + x.norm(dim=1, keepdim=True) * weight.norm(dim=1)).double()
    score = truth if rule.shift is None else truth - rule.shift.double()
    score = score.abs() if two_sided else score
    if rule.boost is not None:
        a, b = rule.boost.states, rule.boost.weight
        boost = (a.double() @ b.double().T).abs()
        of_boost = exact * (1 + a.norm(dim=1, keepdim=True) * b.norm(dim=1)).double()
        made = found.sides[rule.boost.head].double()
        assert bool(((made - support.take(boost)).abs() <= support.take(of_boost)).all())
        tolerance_of_u, score = tolerance, score * (1 + boost)
        tolerance = tolerance * (1 + boost) + score.abs() * 1e-6 + (score.abs() + tolerance) * of_boost
        assert bool(((u.double() - support.take(truth)).abs() <= support.take(tolerance_of_u)).all())
    chosen = torch.zeros_like(truth, dtype=torch.bool)
    chosen[support.rows, support.latents] = True
    assert int(chosen.sum()) == len(u) == len(support.latents), "no place twice"
    assert bool((support.rows.diff() >= 0).all())
    assert bool(((u.double() - support.take(truth)).abs() <= support.take(tolerance)).all())
    if rule.k:
        assert chosen.sum(1).tolist() == [rule.k] * len(x)
        least = torch.where(chosen, score + tolerance, torch.inf).amin(1, keepdim=True)
        assert bool((chosen | (score - tolerance <= least)).all())
    else:
        assert bool((score + tolerance > rule.floor)[chosen].all())
        assert bool((score - tolerance <= rule.floor)[~chosen].all())


def on_cpu(found, n_rows, n_latents):
    """A choice that was made on some device."""
    at = found.support
    places = type(at)(at.rows.cpu(), at.latents.cpu(), n_rows, n_latents, at.per_row)
    return type(found)(places, found.u.cpu(), {name: side.cpu() for name, side in found.sides.items()})
