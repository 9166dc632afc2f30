"""What is said can be said in every encoding, and stops nobody's work."""

import io

import pytest

from rfdetr.console import say


@pytest.mark.parametrize(("encoding", "said"), [("utf-8", b"\\udcff.jpg\n"), ("ascii", b"\\udcff.jpg\n")])
def test_names_that_are_no_text_are_escaped(encoding: str, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    say(b"\xff.jpg".decode(errors="surrogateescape"))
    assert written.getvalue() == said


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        say(f"from {rank}")
    assert capsys.readouterr().out == "from 0\n"
