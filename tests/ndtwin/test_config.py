"""The configuration: what is read, what is refused, what wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from ndtwin.config import Settings, load_settings, write_settings
from twin.calibration import CalibrationRules
from twin.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ndtwin.toml"
    path.write_text(text)
    return path


def test_nothing_given_means_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without file, environment and command line the defaults hold."""
    monkeypatch.chdir(tmp_path)
    assert load_settings(env={}) == Settings()


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    """Each layer replaces the one below; None replaces nothing."""
    path = written(tmp_path, 'run_dir = "a"\n[broker]\nbootstrap = "file:1"\n[collect]\npoll_s = 2.0\n')
    settings = load_settings(
        path,
        {"run_dir": None, "collect": {"poll_s": 3.0}},
        env={"NDTWIN_KAFKA": "env:2", "NDTWIN_RUN_DIR": "b"},
    )
    assert (settings.run_dir, settings.broker.bootstrap, settings.collect.poll_s) == ("b", "env:2", 3.0)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """The effective configuration that the services read says the same as the supervisor's."""
    settings = load_settings(written(tmp_path, "[pipeline]\nwindow_s = 5.0\n"), {"lab": {"seed": 7}}, env={})
    write_settings(settings, tmp_path / "effective.toml")
    assert load_settings(tmp_path / "effective.toml", env={}) == settings


def test_the_twin_is_calibrated_where_the_file_says_so(tmp_path: Path) -> None:
    """Off by default; then with the rules as they are documented."""
    assert load_settings(written(tmp_path, ""), env={}).calibration_rules is None
    settings = load_settings(written(tmp_path, "[twin]\ncalibrate = true\n"), env={})
    assert settings.calibration_rules == CalibrationRules()


def test_one_length_of_a_window_for_everybody(tmp_path: Path) -> None:
    """The detector follows the pipeline's window."""
    settings = load_settings(written(tmp_path, "[pipeline]\nwindow_s = 5.0\n"), env={})
    assert settings.detector.window_s == 5.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[broker]\nboostrap = 'x'\n", "unknown key `boostrap`; known keys: bootstrap"),
        ("colour = 1\n", "unknown key `colour`; known keys: run_dir"),
        ("[collect]\npoll_s = 'often'\n", "collect.poll_s: Expected `float`, got `str`"),
        ("[collect]\npoll_s = 0\n", "collect.poll_s is 0.0: give seconds greater than 0"),
        ("[twin]\nmodel = 'magic'\n", "choose routenet, mg1k or mm1b"),
        ("[broker]\npartitions = 0\n", "give at least 1"),
        ("[broker\n", "is not TOML"),
        ("[detector]\nwindow_s = 3.0\n", "detector.window_s follows pipeline.window_s"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    """The message names the file, the key and what to write instead."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, env={})
    message = str(caught.value)
    assert says.lower() in message.lower()
    assert str(path) in message
    assert "\n" not in message.rstrip()


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A misspelt --config is no reason to run with the defaults."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "no.toml", env={})
