"""What the demo says stands on the screen as it can be copied from it."""

import pytest

from fabric.demo.say import Teller

COMMAND = (
    "  .venv/bin/fabric tail public.G01.wards --config /tmp/a-folder/host-b/agent.toml --count 3"
)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_a_command_that_is_longer_than_the_screen_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Teller().say(COMMAND)
    assert capsys.readouterr().err == f"{COMMAND}\n"


def test_a_step_is_one_line_however_much_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with Teller().step("A and B are equal") as step:
        step.seen = " ".join(["public.G01.wards 3321 rows"] * 5)
    assert capsys.readouterr().err == f"✓ A and B are equal  {step.seen}  0.0 s\n"


def test_an_address_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    address = "postgresql://postgres@127.0.0.1:1234/" + "x" * 80
    Teller().table("it is still running", [("database A", address)])
    assert address in capsys.readouterr().err
