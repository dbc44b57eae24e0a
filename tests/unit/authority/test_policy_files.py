"""The policy repository is served as it lies there, and nothing beside it."""

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from fabric.authority import policy_files
from fabric.authority.policy_files import PolicyFiles
from fabric.model.errors import DeniedError, UnavailableError
from fabric.model.limits import POLICY_METADATA_BYTES_MAX
from tests.fakes.clock import ManualClock


async def served(folder: Path | None, path: str, times: int = 1) -> web.Response:
    app = web.Application()
    files = PolicyFiles(folder, ManualClock())
    app.router.add_get("/policy/{path:.+}", files.handle)
    async with TestClient(TestServer(app)) as client:
        for _ in range(times):
            answer = await client.get(f"/policy/{path}")
        answer.body = await answer.read()
        return answer


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    for name in ("metadata/timestamp.json", "metadata/3.agency-G01.json", "targets/a/b/00.c.yaml"):
        path = tmp_path / "served" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "secret.json").write_text("secret")
    (tmp_path / "served" / ".lock").write_text("")
    return tmp_path / "served"


@pytest.mark.parametrize(
    "name", ["metadata/timestamp.json", "metadata/3.agency-G01.json", "targets/a/b/00.c.yaml"]
)
async def test_files_of_the_repository_are_given_to_everybody(folder: Path, name: str) -> None:
    answer = await served(folder, name)
    assert (answer.status, answer.body) == (200, name.encode())
    kept = answer.headers["Cache-Control"]
    assert ("immutable" in kept) is (name != "metadata/timestamp.json")


@pytest.mark.parametrize(
    "name",
    [
        "metadata/none.json",
        "metadata",
        "metadata/",
        ".lock",
        "metadata/.lock",
        "../secret.json",
        "%2e%2e/secret.json",
        "metadata/..%2f..%2fsecret.json",
        "metadata/%2e%2e/%2e%2e/secret.json",
        "targets/../../secret.json",
        "targets//etc/passwd",
        "targets/a",
        "targets/" + "a/" * 7 + "b",
        "other/timestamp.json",
        "metadata/a%00.json",
    ],
)
async def test_everything_else_is_absent(folder: Path, name: str) -> None:
    assert (await served(folder, name)).status == 404


async def test_link_out_of_the_folder_is_the_owners_own_doing_but_a_folder_is_no_file(
    folder: Path,
) -> None:
    (folder / "metadata" / "x.json").mkdir()
    assert (await served(folder, "metadata/x.json")).status == 404


async def test_without_a_folder_everything_is_absent() -> None:
    assert (await served(None, "metadata/timestamp.json")).status == 404


def test_file_larger_than_any_may_be_is_refused(folder: Path) -> None:
    with (folder / "metadata" / "x.json").open("wb") as file:
        file.truncate(POLICY_METADATA_BYTES_MAX + 1)
    with pytest.raises(DeniedError):
        PolicyFiles(folder, ManualClock())._read("metadata/x.json")


async def test_who_asks_too_often_is_slowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_files, "POLICY_REQUESTS_BURST_MAX", 2)
    files = PolicyFiles(folder, ManualClock())

    class Request:
        remote = "a"
        match_info = {"path": "metadata/timestamp.json"}

    for _ in range(2):
        await files.handle(Request())
    with pytest.raises(UnavailableError):
        await files.handle(Request())
