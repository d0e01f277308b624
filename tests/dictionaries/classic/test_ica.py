"""ICA: independent sources come back, which principal components cannot do."""

import pytest
import torch

from overtone.core.errors import SettingError
from overtone.dictionaries.presets.ica import ICA
from overtone.dictionaries.presets.pca import PCA
from overtone.evaluate.recovery import planted_recovery


def test_independent_sources_are_recovered_and_by_pca_they_are_not():
    draw = torch.Generator().manual_seed(0)
    sources = torch.rand(4000, 6, generator=draw).log()  # exponential: far from Gaussian
    mixing = torch.randn(6, 6, generator=draw)
    x = sources @ mixing + 3
    ica, pca = ICA(6).fitted(x, draw), PCA(6).fitted(x, draw)
    assert planted_recovery(ica.atoms(), mixing).share == 1 > planted_recovery(pca.atoms(), mixing).share
    torch.testing.assert_close(ica.reconstruct(x), x, atol=1e-3, rtol=1e-3)
    assert ICA(6, k=2).fitted(x, draw).encode(x).counts().max() == 2


def test_more_components_than_directions_in_which_rows_vary_are_refused():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(300, 4, generator=draw).log() @ torch.randn(4, 9, generator=draw) + 3
    torch.testing.assert_close(ICA(4).fitted(x, draw).reconstruct(x), x, atol=1e-3, rtol=1e-3)
    with pytest.raises(SettingError, match="vary in 4 directions only: use at most 4"):
        ICA(5).fitted(x, draw)
    with pytest.raises(SettingError, match="all rows are equal"):
        ICA(2).fitted(x[:1].expand(300, 9), draw)
