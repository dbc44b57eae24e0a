"""Small files are replaced whole."""

import stat
from pathlib import Path

from fabric.store.files import replace


def test_file_is_replaced_with_its_mode_and_nothing_is_left_beside(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    replace(path, b"first", mode=0o600)
    path.with_name("file.part").write_bytes(b"what a crash left")
    replace(path, b"second", mode=0o640)
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [item.name for item in path.parent.iterdir()] == ["file"]
