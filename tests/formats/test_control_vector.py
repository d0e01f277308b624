"""Control vectors of llama.cpp: what gguf wrote is read, numbers come back bit for bit, llama.cpp's limits are told."""

import struct
from pathlib import Path

import pytest
import torch

from overtone.cli import main
from overtone.core.errors import DataError, SettingError, ShapeError, SiteError, StoreError
from overtone.directions.direction import load_directions, save_directions, unit_direction
from overtone.formats.control_vector import export_control_vector, import_control_vector
from overtone.steering.strength import Strength

GOLDEN = Path(__file__).parent / "golden"


def made(site, seed=0, width=8):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(50, width, generator=generator) + 1
    return unit_direction(torch.randn(width, generator=generator), site, rows=rows, name="wait")


def test_what_the_gguf_package_wrote_is_read():
    """The file holds linspace(L, L + 1, 8) for L = 1, 2, 5 (tools/check_gguf.py)."""
    (path,) = GOLDEN.glob("gguf-*/control_vector.gguf")
    found = import_control_vector(path)
    assert [str(d.site) for d in found] == ["residual.1", "residual.2", "residual.5"]
    for direction in found:
        wanted = torch.linspace(direction.site.layer, direction.site.layer + 1, 8)
        torch.testing.assert_close(direction.vector * direction.raw_norm, wanted)
        assert direction.origin["model_hint"] == "llama"


@pytest.mark.parametrize("width", [1, 7, 8, 33])
def test_there_and_back_the_vector_is_the_same_and_the_strength_is_its_length(width, tmp_path):
    directions = [made("residual.4", 1, width), made("residual.2", 2, width)]
    strength = Strength(0.3, "norm")
    export_control_vector(directions, tmp_path / "v.gguf", strength=strength, model_hint="llama")
    back = import_control_vector(tmp_path / "v.gguf", model="abc")
    assert [d.site.layer for d in back] == [2, 4] and {d.model for d in back} == {"abc"}
    for direction, found in zip(directions[::-1], back, strict=True):
        torch.testing.assert_close(found.vector, direction.vector)
        assert found.raw_norm == pytest.approx(strength.absolute(direction), rel=1e-6)


def test_tensors_begin_where_the_layout_says(tmp_path):
    path = export_control_vector([made("residual.1"), made("residual.2", 1)], tmp_path / "v.gguf")
    data = path.read_bytes()
    assert data[:4] == b"GGUF" and struct.unpack("<IQQ", data[4:24])[:2] == (3, 2)
    assert len(data) % 32 == 0
    assert torch.equal(torch.frombuffer(bytearray(data[-64:-32]), dtype=torch.float32), made("residual.1").vector)


@pytest.mark.parametrize("site", ["embedding", "residual.0", "mlp_out.3"])
def test_where_llama_cpp_cannot_steer_is_refused(site, tmp_path):
    with pytest.raises(SiteError, match=r"from block 1 on .*moved"):
        export_control_vector([made(site)], tmp_path / "v.gguf")
    assert not (tmp_path / "v.gguf").exists()


def test_what_does_not_belong_together_is_refused(tmp_path):
    with pytest.raises(DataError, match="Combine them first"):
        export_control_vector([made("residual.1"), made("residual.1", 1)], tmp_path / "v.gguf")
    with pytest.raises(ShapeError):
        export_control_vector([made("residual.1"), made("residual.2", width=4)], tmp_path / "v.gguf")
    with pytest.raises(DataError, match="no direction"):
        export_control_vector([], tmp_path / "v.gguf")
    unmeasured = unit_direction(torch.ones(4), "residual.1")
    with pytest.raises(SettingError, match="mean_norm"):
        export_control_vector([unmeasured], tmp_path / "v.gguf", strength=Strength(1, "norm"))


def test_other_files_are_refused(tmp_path):
    path = export_control_vector([made("residual.1")], tmp_path / "v.gguf")
    data = path.read_bytes()
    for name, bad in {
        "cut": data[:-8],
        "short": data[:40],
        "foreign": b"GGML" + data[4:],
        "model": data.replace(b"controlvector", b"kontrolvector", 1),
    }.items():
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(StoreError, match=name):
            import_control_vector(tmp_path / name)


def test_the_command_writes_and_reads_them(tmp_path, capsys):
    save_directions(tmp_path / "mine", [made("residual.3")])
    words = ["--to", "gguf", "--strength", "0.5", "--unit", "norm", "--model", "llama"]
    assert main(["convert", str(tmp_path / "mine"), str(tmp_path / "v.gguf"), *words]) == 0
    assert "directions at residual.3 of width 8" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "v.gguf"), str(tmp_path / "back"), "--to", "overtone", "--json"]) == 0
    (back,) = load_directions(tmp_path / "back")
    torch.testing.assert_close(back.vector, made("residual.3").vector)
    assert back.raw_norm == pytest.approx(0.5 * made("residual.3").mean_norm)
    assert main(["convert", str(tmp_path / "v.gguf"), str(tmp_path / "other"), "--to", "saelens"]) == 2
    assert "--to overtone" in capsys.readouterr().err
