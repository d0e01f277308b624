"""Logistic probes as directions, with the standardisation folded back into the state's own coordinates."""

import warnings

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from overtone.core.batch import require_finite
from overtone.core.errors import DataError
from overtone.core.sites import Site
from overtone.directions.direction import Direction, unit_direction


def probe(
    rows: Float[Tensor, "rows width"],
    is_positive: Bool[Tensor, " rows"],
    site: Site | str,
    *,
    penalty: float = 1.0,
    covariance_corrected: bool = False,
    model: str = "",
    name: str = "probe",
) -> Direction:
    """The normal of a logistic regression's boundary: v.h grows with the log-odds of the positive class.

    Coordinates are standardised for the fit (balanced classes, L2 weight `penalty`, the inverse of scikit-learn's C)
    and the weights are folded back: w = w_standardised / std. covariance_corrected returns Sigma_within w instead,
    the direction along which the classes differ (for linear discriminant analysis exactly the mean difference); w
    itself is the best READER and may differ from it. raw_norm is the length before normalising. Raises DataError if a
    class is empty.
    """
    from sklearn.linear_model import LogisticRegression

    x = require_finite(rows, "rows").to("cpu", torch.float64)
    y = is_positive.cpu()
    if not bool(y.any()) or bool(y.all()):
        raise DataError(f"a probe needs both classes; got {int(y.sum())} positive of {len(y)} rows. Check the labels.")
    std = x.std(0, unbiased=False).clamp_min(1e-12)
    scaled = ((x - x.mean(0)) / std).numpy()
    with warnings.catch_warnings():  # not converged in 2000 iterations: recorded below rather than printed
        warnings.simplefilter("ignore")
        fitted = LogisticRegression(C=1.0 / penalty, class_weight="balanced", max_iter=2000).fit(scaled, y.numpy())
    w = torch.from_numpy(fitted.coef_[0]) / std
    if covariance_corrected:
        within = torch.cat([x[y] - x[y].mean(0), x[~y] - x[~y].mean(0)])
        w = within.T @ (within @ w) / len(x)
    origin = {
        "how": "probe", "penalty": penalty, "covariance_corrected": covariance_corrected, "n_rows": len(x),
        "n_positive": int(y.sum()), "converged": bool(fitted.n_iter_[0] < 2000),
    }  # fmt: skip
    return unit_direction(w, site, model=model, rows=rows, name=name, origin=origin)
