"""An archive of classes is used only whole, and only with the jars and the Java it was made of."""

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fabric.demo import archive, rehearsal
from fabric.demo.broker import jars
from fabric.model.errors import UnavailableError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of jars, so to say."""
    lib = tmp_path / "lib"
    lib.mkdir()
    for name in ("kafka_2.13-4.jar", "scala-2.jar"):
        (lib / name).write_bytes(name.encode())
    return lib


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a Java of some version, and have it found first."""

    def install(version: str) -> None:
        home = tmp_path / f"java-{version}"
        for part in ("bin/java", "lib/modules"):
            (home / part).parent.mkdir(parents=True)
            (home / part).write_text(version)
        (home / "bin" / "java").chmod(0o755)
        monkeypatch.setenv("PATH", str(home / "bin"))

    install("17.0.15")
    return install


def _kept(folder: Path, data: bytes = b"classes" * 1000) -> Path:
    fresh = folder / "fresh"
    fresh.write_bytes(data)
    return archive.keep(fresh, folder)


@pytest.mark.usefixtures("java")
def test_without_an_archive_a_jvm_is_told_nothing(folder: Path) -> None:
    assert archive.options(folder) == ()


@pytest.mark.usefixtures("java")
def test_what_is_kept_is_used_and_checked(folder: Path) -> None:
    place = _kept(folder)
    assert place.parent == folder
    assert archive.options(folder) == ("-XX:+VerifySharedSpaces", f"-XX:SharedArchiveFile={place}")


@pytest.mark.usefixtures("java")
@pytest.mark.parametrize("left", [0, 50, 6_999])
def test_a_truncated_archive_is_not_used_and_the_next_takes_its_place(
    folder: Path, left: int
) -> None:
    place = _kept(folder)
    with place.open("r+b") as file:
        file.truncate(left)
    assert archive.options(folder) == ()
    again = _kept(folder, b"other" * 1000)
    assert archive.find(folder) == again
    assert not place.exists()


@pytest.mark.usefixtures("java")
@pytest.mark.parametrize("change", ["grown", "touched", "new", "gone"])
def test_after_a_change_of_the_jars_an_archive_is_not_used_and_then_removed(
    folder: Path, change: str
) -> None:
    place = _kept(folder)
    jar = folder / "scala-2.jar"
    match change:
        case "grown":
            jar.write_bytes(b"longer than it was")
        case "touched":
            jar.touch()
        case "new":
            (folder / "more.jar").touch()
        case _:
            jar.unlink()
    assert archive.options(folder) == ()
    assert archive.find(folder) != place
    assert archive.find(folder) is None
    again = _kept(folder)
    assert list(folder.glob("*.jsa")) == [again]


def test_after_a_change_of_java_an_archive_is_not_used(
    folder: Path, java: Callable[[str], None]
) -> None:
    _kept(folder)
    java("17.0.16")
    assert archive.options(folder) == ()


@pytest.mark.usefixtures("java")
def test_jars_that_were_moved_have_no_archive(folder: Path, tmp_path: Path) -> None:
    _kept(folder)
    elsewhere = folder.rename(tmp_path / "elsewhere")
    assert archive.options(elsewhere) == ()


@pytest.mark.usefixtures("java")
def test_of_several_that_are_kept_at_once_none_harms_another(folder: Path, tmp_path: Path) -> None:
    def make(number: int) -> Path:
        fresh = tmp_path / f"fresh-{number}"
        fresh.write_bytes(bytes(10_000 + number % 3))
        return archive.keep(fresh, folder)

    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(make, range(64)))
    assert all(place.stat().st_size == int(place.stem.rpartition("-")[2]) for place in places)
    assert archive.find(folder) in places


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kafka's jars by other paths, and `fresh.jsa`, an archive of a few of their classes."""
    lib = tmp_path_factory.mktemp("lib")
    for jar in jars().glob("*.jar"):
        (lib / jar.name).symlink_to(jar)
    _tool(lib, f"-XX:ArchiveClassesAtExit={lib / 'fresh.jsa'}")
    return lib


def _tool(lib: Path, *options: str) -> "subprocess.CompletedProcess[bytes]":
    command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *options]
    command += ["-cp", f"{lib}/*", "kafka.tools.StorageTool", "random-uuid"]
    return subprocess.run(command, capture_output=True, timeout=100, check=False)


def _copied(lib: Path, folder: Path, damage: int = 0) -> Path:
    """A copy; at `damage` percent of it a byte is another, which crashes a JVM that trusts it."""
    data = bytearray((lib / "fresh.jsa").read_bytes())
    if damage:
        data[len(data) * damage // 100] ^= 0x5A
    copy = folder / "copy.jsa"
    copy.write_bytes(data)
    return copy


def test_a_jvm_takes_its_classes_from_what_was_kept(made: Path, tmp_path: Path) -> None:
    copy = _copied(made, tmp_path)
    rehearsal.prove(copy, made)
    archive.keep(copy, made)
    done = _tool(made, *archive.options(made), "-Xlog:class+load")
    assert done.stdout.count(b"source: shared objects file (top)") > 100


def test_a_damaged_archive_is_not_proved_and_a_jvm_that_gets_it_goes_on_without(
    made: Path, tmp_path: Path
) -> None:
    copy = _copied(made, tmp_path, damage=90)
    with pytest.raises(UnavailableError):
        rehearsal.prove(copy, made)
    done = _tool(made, "-XX:+VerifySharedSpaces", f"-XX:SharedArchiveFile={copy}")
    assert done.returncode == 0


def test_setup_goes_on_where_there_are_no_jars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FABRIC_KAFKA_LIB", str(tmp_path))
    assert rehearsal.main() == 0
    assert "make setup" in capsys.readouterr().err


def test_setup_goes_on_where_nothing_can_be_written(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FABRIC_KAFKA_LIB", str(made))
    monkeypatch.setattr(archive, "find", lambda folder: None)

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert rehearsal.main() == 0
    assert "Read-only" in capsys.readouterr().err
    assert not list(made.glob(".rehearsal-*"))
