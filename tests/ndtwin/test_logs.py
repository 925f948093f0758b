"""What a log line shows of an exception: where it happened, and never what variables held."""

from __future__ import annotations

import logging

import pytest
import structlog

from ndtwin import logs


def open_session(community: str) -> None:
    """As a library may fail that was given a secret."""
    raise RuntimeError("cannot be opened")


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("logger", ["ndtwin.collect", "asyncio"])
def test_a_logged_exception_shows_no_variables(
    form: str, logger: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that was an argument somewhere is not in the traceback, ours or another library's."""
    monkeypatch.setenv("NDTWIN_LOG", form)
    logs.configure(logging.DEBUG)
    secret = "-".join(("hunter", "2"))  # as a whole it is in no line of source
    try:
        open_session(secret)
    except RuntimeError:
        if logger == "asyncio":
            logging.getLogger(logger).error("Exception in callback", exc_info=True)
        else:
            structlog.get_logger(logger).exception("poll failed")
    told = capsys.readouterr().err
    assert "cannot be opened" in told
    assert "test_logs.py" in told
    assert secret not in told
