import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.exchange import archive
from napari_braintumor.engine.exchange.archive import Archive


def write_zip(path: Path, members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name) if packing == zipfile.ZIP_STORED else name, content)
    return path


@pytest.fixture
def members() -> dict[str, bytes]:
    return {"configs/inference.json": b"{}", "models/model.pt": bytes(range(256)) * 9, "LICENSE": b"MIT"}


def test_a_zip_a_folder_and_bytes_are_read_alike(tmp_path: Path, members: dict[str, bytes]) -> None:
    packed = write_zip(tmp_path / "bundle.zip", members)
    folder = tmp_path / "bundle"
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for source in (packed, folder, packed.read_bytes()):
        with Archive(source) as opened:
            assert opened.names() == sorted(members)
            assert {name: opened.read(name) for name in opened.names()} == members
            assert opened.size("models/model.pt") == 2304


def test_nothing_is_unpacked(tmp_path: Path, members: dict[str, bytes]) -> None:
    packed = write_zip(tmp_path / "bundle.zip", members)
    with Archive(packed) as opened:
        opened.read("models/model.pt")
    assert list(tmp_path.iterdir()) == [packed]


def test_entries_of_folders_are_not_files(tmp_path: Path) -> None:
    with Archive(write_zip(tmp_path / "a.zip", {"models/": b"", "models/a": b"1"})) as opened:
        assert opened.names() == ["models/a"]


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "C:/evil",
        "c:evil",
        "a\\..\\evil",
        "\\\\host\\evil",
        "a//b",
        "./a",
        "a\nb",
    ],
)
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "evil.zip", {"fine": b"1", name: b"2"})
    with pytest.raises(ModelError, match=r"would lie outside it\. It is refused as malicious"), Archive(path):
        pass


def test_a_name_that_zipfile_would_cut_short_is_seen_whole(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "nul.zip", {"model.jsonX/../../evil": b"1"})
    path.write_bytes(path.read_bytes().replace(b"jsonX", b"json\0"))
    with pytest.raises(ModelError, match="would lie outside"), Archive(path):
        pass


def test_links_are_refused_in_zips_and_folders(tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as file:
        link = zipfile.ZipInfo("model.pt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.pt").symlink_to("/etc/passwd")
    pipe = tmp_path / "pipe"
    pipe.mkdir()
    os.mkfifo(pipe / "model.pt")
    for source in (path, folder, pipe):
        with pytest.raises(ModelError, match=r"'model\.pt' in '.*' is a link or a device"), Archive(source):
            pass


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as file:
        file.writestr("a", "1")
        file.writestr("a", "2")
    with pytest.raises(ModelError, match="holds two files 'a'"), Archive(tmp_path / "two.zip"):
        pass


def test_encrypted_files_and_odd_packings_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a": b"1"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ModelError, match="'a' in 'the archive' is encrypted"), Archive(bytes(content)):
        pass
    with (
        pytest.raises(ModelError, match="packed in an unknown way"),
        Archive(write_zip(tmp_path / "b.zip", {"a": b"1" * 99}, zipfile.ZIP_LZMA)),
    ):
        pass


def test_more_files_or_bytes_than_a_model_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(6):
        (folder / str(number)).write_bytes(b"12345")
    path = write_zip(tmp_path / "many.zip", {str(number): b"12345" for number in range(6)})
    for source in (folder, path):
        with monkeypatch.context() as patch:
            patch.setattr(archive, "MAX_MEMBERS", 5)
            with pytest.raises(ModelError, match="holds more than 5 files"), Archive(source):
                pass
            patch.setattr(archive, "MAX_MEMBERS", 6)
            patch.setattr(archive, "MAX_BYTES", 29)
            with pytest.raises(ModelError, match="declares 30 bytes"), Archive(source):
                pass


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bomb.zip", {"weights": bytes(80 * 2**20)})
    with pytest.raises(ModelError, match="refused as a zip bomb"), Archive(path):
        pass


def test_a_file_that_grows_beyond_its_declared_size_is_not_read_on(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "lie.zip", {"weights": bytes(5000)})
    content = path.read_bytes().replace(struct.pack("<I", 5000), struct.pack("<I", 50))
    with Archive(content) as opened, pytest.raises(ModelError, match="'weights' in 'the archive' is damaged"):
        opened.read("weights")


def test_a_caller_may_expect_less(tmp_path: Path) -> None:
    with Archive(write_zip(tmp_path / "a.zip", {"card.json": b"{}  "})) as opened:
        assert opened.read("card.json", 4) == b"{}  "
        with pytest.raises(ModelError, match="has 4 bytes; expected at most 3"):
            opened.read("card.json", 3)
        with pytest.raises(ModelError, match=r"'a.zip' holds no file 'none'"):
            opened.read("none")


def test_damaged_zips_and_missing_files_are_refused(tmp_path: Path, members: dict[str, bytes]) -> None:
    whole = write_zip(tmp_path / "a.zip", members).read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:-9], whole[: len(whole) // 2], b"text" * 99):
        with pytest.raises(ModelError, match="damaged or not a zip file"), Archive(content):
            pass
    flipped = bytearray(whole)
    flipped[whole.index(b"model.pt") + 12] ^= 255
    with Archive(bytes(flipped)) as opened, pytest.raises(ModelError, match="is damaged"):
        opened.read("models/model.pt")
    with pytest.raises(ModelError, match="cannot be read: No such file"), Archive(tmp_path / "none.zip"):
        pass
