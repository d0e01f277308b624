"""What is shown while training."""

import io

from overtone.training.record import Display, Record


def record(job="top_k", tokens=250, unexplained=0.25):
    return Record(job, tokens, loss=0.3, unexplained=unexplained, l0=8.0, share_dead=0.5, tokens_per_s=500.0)


def test_a_line_names_error_l0_dead_share_speed_and_time_left():
    line = Display(1000, quiet=True).line([record()])
    assert line == "training top_k:  25 %, error 0.250, L0 8.0, dead 50 %, 0.5k tokens/s, 2 s left"


def test_several_dictionaries_share_a_line():
    line = Display(1000, quiet=True).line([record(), record(unexplained=0.5), record(unexplained=0.1)])
    assert "3 dictionaries" in line and "error 0.250 (worst 0.500)" in line


def test_quiet_means_silent_and_files_get_few_lines(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    Display(1000, quiet=True).show([record()])
    display = Display(1000, quiet=False, every_s=3600)
    display.show([record()])
    display.close()
    assert out.getvalue() == ""
    often = Display(1000, quiet=False, every_s=0)
    often.show([record()])
    often.close()
    assert out.getvalue().count("\n") == 1
