import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from napari_braintumor.engine import atomic
from napari_braintumor.engine.atomic import making_folder, replacing
from napari_braintumor.engine.errors import DataError


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was flushed and what was given its name, in order."""
    seen: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def kept(handle: int) -> None:
        seen.append(("flushed", str(Path(f"/proc/self/fd/{handle}").readlink())))
        fsync(handle)

    def named(move):
        def wrapper(self: Path, target: Path) -> Path:
            seen.append(("named", str(target)))
            return move(self, target)

        return wrapper

    monkeypatch.setattr(atomic.os, "fsync", kept)
    monkeypatch.setattr(Path, "replace", named(replace))
    monkeypatch.setattr(Path, "rename", named(rename))
    return seen


def test_a_file_replaces_the_old_one_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".json"
        assert temporary.name.startswith(".")
    assert path.read_text() == "new"
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(f"broken {1 / 0}")
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["a.json"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks up names of open files as Linux gives them")
def test_what_is_written_is_on_the_disk_before_it_gets_its_name(on_disk: list[tuple[str, str]], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert on_disk == [("flushed", str(temporary)), ("named", str(path)), ("flushed", str(tmp_path))]
    on_disk.clear()
    with making_folder(tmp_path / "case") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a.txt").write_text("a")
    assert {name for what, name in on_disk[:3] if what == "flushed"} == {
        str(temporary), str(temporary / "inner"), str(temporary / "inner" / "a.txt")
    }  # fmt: skip
    assert on_disk[3:] == [("named", str(tmp_path / "case")), ("flushed", str(tmp_path))]


@pytest.mark.parametrize("name", ["a.txt", "a" * 251 + ".txt", "张" * 80 + ".nii.gz"])
def test_threads_that_write_one_file_at_once_do_not_mix(tmp_path: Path, name: str) -> None:
    path, together = tmp_path / name, threading.Barrier(4)

    def write(letter: str) -> None:
        with replacing(path) as temporary:
            together.wait()
            for _ in range(50):
                with temporary.open("a") as file:
                    file.write(letter)
            together.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    assert path.read_text() in [letter * 50 for letter in "abcd"]
    assert names_in(tmp_path) == [name]


def test_a_folder_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    with making_folder(tmp_path / "case") as temporary:
        (temporary / "a.txt").write_text("a")
        assert not (tmp_path / "case").exists()
    assert names_in(tmp_path / "case") == ["a.txt"]
    with pytest.raises(FileExistsError), making_folder(tmp_path / "case") as temporary:
        (temporary / "b.txt").write_text("b")
    with pytest.raises(ZeroDivisionError), making_folder(tmp_path / "other") as temporary:
        (temporary / "c.txt").write_text(f"c {1 / 0}")
    assert names_in(tmp_path) == ["case"]
    assert names_in(tmp_path / "case") == ["a.txt"]


@pytest.mark.parametrize("place", ["no-folder/a.txt", "a-file/a.txt"])
def test_what_cannot_be_written_is_a_sentence_and_leaves_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written: .*Choose an existing folder"), \
            replacing(tmp_path / place) as temporary:  # fmt: skip
        temporary.write_text("a")
    with pytest.raises(DataError, match=r"is a folder. Give a file name"), replacing(tmp_path):
        pass
    assert names_in(tmp_path) == ["a-file"]
