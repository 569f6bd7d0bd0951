"""Nothing about the patient leaves the scanner's files: every byte that is written, printed or shown is searched."""

from __future__ import annotations

import dataclasses
import gzip
import json
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from dicom import MARKED, Acquisition, Storage, affine_of, with_tags, write_capture, write_case, write_pdf, write_series
from napari_braintumor.cli import app
from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.choosing_series.changing import choose_series, remember_choice
from napari_braintumor.engine.files.dicom.reading import read_series
from napari_braintumor.engine.files.dicom.segmentation import write_segmentation
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.written import write_case as write_corrected
from napari_braintumor.engine.volumes import Legend
from toy_cases import make_case

SERIES = {
    "T1": Acquisition("ax t1", 2, echo_time=9.0, repetition_time=500.0),
    "T1ce": Acquisition("ax t1 SECRET^NAME", 7, echo_time=9.0, repetition_time=500.0, contrast="Gadovist"),
    "T2": Acquisition("ax t2", 3, echo_time=100.0, repetition_time=5000.0, tags={"ProtocolName": "SECRET-ID-4711 t2"}),
    "FLAIR": Acquisition("ax flair", 4, echo_time=110.0, repetition_time=9000.0, inversion_time=2500.0),
}
BIRTH = MARKED["PatientBirthDate"]
run = CliRunner().invoke


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case of a made-up patient; folders and files are named as archives name them: after the patient."""
    volume, _ = make_case(5)
    folder = tmp_path_factory.mktemp("scans") / "SECRET_NAME_19010203"
    entries = []
    for number, (modality, acquisition) in enumerate(SERIES.items()):
        values = volume.data[volume.modalities.index(modality)].clip(0)
        storage = Storage(suffix=".SECRET.IMA" if number else ".dcm", left_out=(5,) if modality == "T2" else ())
        entries.append((values, volume.source.affine_ZYX, acquisition, storage))
    write_case(folder, entries)
    write_pdf(folder, Acquisition("Report of SECRET^NAME", 20))
    write_capture(folder, Acquisition("Key images", 21))
    broken = next((folder / "002").iterdir())
    (folder / "SECRET-ID-4711.dcm").write_bytes(broken.read_bytes()[:900])
    return folder


def leaks(text: str | bytes) -> list[str]:
    """Return the marked values that a text contains, however it is spelled or encoded."""
    if isinstance(text, bytes):
        return [leak for code in ("latin-1", "utf-16-le", "utf-16-be") for leak in leaks(text.decode(code, "replace"))]
    return [marker for marker in ("secret", BIRTH, "1901-02-03", "id-4711") if marker in text.casefold()]


def unzipped(path: Path) -> Iterator[bytes]:
    """Yield the name and the content of a file, and what is packed in it."""
    yield path.name.encode()
    content = path.read_bytes()
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def leaking_files(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [f"{path}: {found}" for path in files for part in unzipped(path) if (found := leaks(part))]


def texts(value: Any, depth: int = 12) -> Iterator[str | bytes]:
    """Yield every text within a value: of names, keys, fields and arrays."""
    if isinstance(value, str | bytes):
        yield value
    elif isinstance(value, Path):
        yield ""  # where the user's own files lie
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(key, depth - 1)
            yield from texts(item, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from texts(item, depth - 1)
    elif dataclasses.is_dataclass(value) and depth:
        yield from texts([getattr(value, field.name) for field in dataclasses.fields(value)], depth - 1)
    elif isinstance(value, np.ndarray):
        yield value.tobytes() if value.dtype.kind in "SUO" else b""
    else:
        yield repr(value)


def test_the_search_finds_what_it_should(tmp_path: Path):
    for name, content in (("a.txt", b"x SECRET x"), ("b.bin", "Secret".encode("utf-16-le")), ("c", BIRTH.encode())):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "d.gz").write_bytes(gzip.compress(b"SECRET"))
    (tmp_path / "secret.txt").write_bytes(b"")
    assert len(leaking_files(tmp_path)) == 5
    assert [leak for text in texts({"a": [("SECRET",)]}) for leak in leaks(text)] == ["secret"]


@pytest.mark.parametrize("command", [("inspect",), ("inspect", "--json"), ("inspect", "--series", "T2=none")])
def test_the_table_of_series_shows_no_patient(scans: Path, command: tuple[str, ...]):
    result = run(app, [command[0], str(scans), *command[1:]])
    assert result.exit_code == 0, result.output
    assert "ax flair" in result.output
    assert not leaks(result.output)


@pytest.mark.parametrize("suffix", ["nii.gz", "nii", "tif", None])
def test_segmenting_writes_and_prints_no_patient(
    scans: Path, toy_model: Path, tmp_path: Path, suffix: str | None, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    form = [] if suffix is None else ["--format", suffix]
    picks = ["--series", "T1=2"]
    out = tmp_path / "out"
    result = run(app, ["segment", str(scans), "-o", str(out), "-m", str(toy_model), "--verbose", *form, *picks])
    assert result.exit_code == 0, result.output
    assert "whole tumor" in result.output
    assert len(list(out.iterdir())) == 2
    assert not leaks(result.output)
    assert not leaks(caplog.text)
    assert not leaking_files(tmp_path)


def test_the_name_is_written_only_if_the_user_asks(scans: Path, toy_model: Path, tmp_path: Path):
    arguments = ["segment", str(scans), "-o", str(tmp_path / "out"), "-m", str(toy_model), "--keep-names"]
    result = run(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "SECRET_NAME_2024-02-29_tumor.json").is_file()
    assert leaking_files(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "SECRET_NAME_2024-02-29_tumor.json").read_text())
    assert record["case"] == "SECRET_NAME_2024-02-29"
    assert not leaks(json.dumps({key: value for key, value in record.items() if key not in ("case", "written")}))


def test_a_drawn_picture_and_a_corrected_case_hold_no_patient(scans: Path, toy_model: Path, tmp_path: Path):
    result = run(app, ["demo", str(scans), "-o", str(tmp_path / "out"), "-m", str(toy_model)])
    assert result.exit_code == 0, result.output
    assert not leaks(result.output)
    (case,) = find_cases(scans)
    volume = read_case(case)
    labels = np.zeros(volume.shape, np.uint8)
    labels[2:4, 20:30, 20:30] = 2
    write_corrected(tmp_path / "corrected" / volume.name, volume, labels, "whole", patient=case.patient)
    assert list((tmp_path / "corrected").rglob("case.json"))
    assert not leaking_files(tmp_path)


def test_layers_in_napari_hold_no_patient(scans: Path, monkeypatch: pytest.MonkeyPatch):
    from napari_braintumor import readers

    shown: list[str] = []
    monkeypatch.setattr(readers, "show_warning", shown.append)
    layers = readers.read_layers(scans)
    assert len(layers) == 4
    for data, options, _ in layers:
        assert isinstance(data, np.ndarray)
        assert not [text for text in texts(options) if leaks(text)], options["name"]
    assert "series 3 'ax t2'" in " ".join(shown).lower()
    assert not leaks(" ".join(shown))


def test_cases_rows_and_volumes_hold_no_patient(scans: Path):
    (case,) = find_cases(scans)
    assert not [text for text in texts(case) if leaks(text)]
    volume = read_case(case)
    assert volume.modalities == ("T1", "T1ce", "T2", "FLAIR")
    assert any("series 3 'ax t2'" in note.lower() for note in volume.notes)
    assert not [text for text in texts(dataclasses.replace(volume, data=volume.data[:, :1, :1, :1])) if leaks(text)]


@pytest.mark.parametrize("pick", ["T1=99", "T1=20", "T1=21", "T1=ax"])
def test_messages_name_no_patient(scans: Path, pick: str):
    (case,) = find_cases(scans)
    with pytest.raises(BrainTumorError) as raised:
        choose_series(case, [pick])
    assert not leaks(str(raised.value))


def test_pixels_that_cannot_be_decoded_are_reported_without_the_patient(scans: Path, tmp_path: Path):
    import shutil

    shutil.copytree(scans, tmp_path / "copy")
    path = sorted((tmp_path / "copy" / "004").iterdir())[3]
    path.write_bytes(path.read_bytes()[:-900])
    (case,) = find_cases(tmp_path / "copy")
    notes = " ".join(read_case(case).notes)
    assert "is damaged" in notes
    assert f"file 4 of {len(list(path.parent.iterdir()))} in its folder" in notes.casefold()
    assert not leaks(notes)


def test_what_is_remembered_holds_no_patient(scans: Path, tmp_path: Path):
    (case,) = find_cases(scans)
    remember_choice(choose_series(case, ["T1=none"]))
    assert list((tmp_path / "users-choices").iterdir())
    assert not leaking_files(tmp_path)


# ----------------------------------------------------------------- files and folders that are named after the patient

AXIAL = Acquisition("ax t1", 2, echo_time=9.0, repetition_time=500.0)


def write_named(folder: Path, **tags: Any) -> list[Path]:
    """Write a small series whose folder and files are named after the patient."""
    values = np.random.default_rng(3).integers(0, 500, (6, 40, 40))
    affine = affine_of(shape=values.shape, spacing=(5.0, 4.0, 4.0))
    paths = write_series(folder / "SECRET_NAME_MR", values, affine, with_tags(AXIAL, **tags))
    return [path.rename(path.with_name(f"SECRET^NAME_{path.name}")) for path in paths]


def cut(paths: list[Path], at: int, which: slice) -> None:
    for path in paths[which]:
        path.write_bytes(path.read_bytes()[:at])


def put(name: str, content: bytes) -> Callable[[list[Path]], object]:
    return lambda paths: (paths[0].parent / name).write_bytes(content)


def untag(paths: list[Path], *keywords: str) -> None:
    for path in paths:
        data = pydicom.dcmread(path)
        for keyword in keywords:
            delattr(data, keyword)
        data.save_as(path)


def pack(paths: list[Path], damaged: bool) -> None:
    archive = paths[0].parent.parent / "SECRET_NAME.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in paths:
            packed.write(path, f"SECRET_NAME/{path.name}")
            path.unlink()
    paths[0].parent.rmdir()
    if damaged:
        archive.write_bytes(archive.read_bytes()[:-400] + bytes(200) + archive.read_bytes()[-200:])


PNG = b"\x89PNG\r\n\x1a\n" + bytes(400)
WAYS: dict[str, Callable[[list[Path]], object]] = {
    "good": lambda paths: None,
    "one header cut": lambda paths: cut(paths, 300, slice(2, 3)),
    "all headers cut": lambda paths: cut(paths, 300, slice(None)),
    "cut before anything": lambda paths: cut(paths, 60, slice(None)),
    "one without pixels": lambda paths: cut(paths, -900, slice(2, 3)),
    "all without pixels": lambda paths: cut(paths, -900, slice(None)),
    "one alone": lambda paths: [path.unlink() for path in paths[1:]],
    "garbage beside": put("SECRET_t1.dcm", bytes(range(256)) * 8),
    "text beside": put("SECRET_NAME_flair.dcm", b"hello"),
    "nothing beside": put("SECRET_NAME_t2.IMA", b""),
    "picture beside": put("SECRET_flair.dcm", PNG),
    "NIfTI named DICOM beside": put("SECRET_t1_seg.dcm", b"\x5c\x01\0\0" + bytes(340) + b"n+1\0"),
    "only a picture": lambda paths: [path.write_bytes(PNG) for path in paths],
    "without suffix": lambda paths: [path.rename(path.with_suffix("")) for path in paths],
    "no name": lambda paths: untag(paths, "PatientName"),
    "no number": lambda paths: untag(paths, "PatientID", "OtherPatientIDs"),
    "no series": lambda paths: untag(paths, "SeriesInstanceUID", "SeriesDescription", "SeriesNumber"),
    "no places": lambda paths: untag(paths, "ImagePositionPatient"),
    "no thickness": lambda paths: [*(p.unlink() for p in paths[1:]), untag(paths[:1], "SliceThickness")],
    "no pixel size": lambda paths: untag(paths, "PixelSpacing"),
    "no class": lambda paths: untag(paths, "SOPClassUID", "Rows"),
    "archive": lambda paths: pack(paths, damaged=False),
    "damaged archive": lambda paths: pack(paths, damaged=True),
}


def everything_said(paths: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | bytes]:
    """Open paths in every way there is, and return all that is said, shown and written on the way."""
    from napari_braintumor import readers
    from napari_braintumor.layers.opening import open_paths

    said: list[str | bytes] = []
    monkeypatch.setattr(readers, "show_warning", said.append)
    ways: list[Callable[[], object]] = [
        lambda: [dataclasses.replace(case, images=()) for case in find_cases(paths)],
        lambda: [options for _, options, _ in readers.read_layers(paths)],
        lambda: list(open_paths(paths)),
        *(lambda path=path: readers.read_layers(path) for path in paths),
    ]
    with suppress(BrainTumorError):
        ways += [lambda case=case: read_case(case).notes for case in find_cases(paths, offer=True)]
    for way in ways:
        try:
            said += texts(way())
        except BrainTumorError as error:
            said.append(str(error))
    for command in (["inspect"], ["inspect", "--json"], ["prepare", "--verbose", "-o", str(out)]):
        said.append(run(app, [command[0], *map(str, paths), *command[1:]]).output)
    return said + [part for path in out.rglob("*") if path.is_file() for part in unzipped(path)]


@pytest.mark.parametrize("way", WAYS)
def test_names_of_scanners_files_and_folders_are_never_shown(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "from_scanner"
    WAYS[way](write_named(folder))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for given in ([folder], [files[0].parent], files[:1], files[-1:], files):
        said = everything_said(given, tmp_path / "out", monkeypatch)
        assert any(said)
        assert not [text for text in said if leaks(text)], given
    assert not leaks(caplog.text)


@pytest.mark.parametrize("way", WAYS)
def test_the_dock_never_shows_names_of_scanners_files_and_folders(
    tmp_path: Path, way: str, qtbot: Any, caplog: pytest.LogCaptureFixture
):
    from napari.components import ViewerModel
    from napari.utils.notifications import notification_manager
    from qtpy.QtWidgets import QComboBox, QLabel, QWidget

    from napari_braintumor.widgets.segmenting.dock import SegmentDock

    caplog.set_level(logging.DEBUG)
    notification_manager.records.clear()
    WAYS[way](write_named(tmp_path / "from_scanner"))
    viewer = ViewerModel()
    dock = SegmentDock(viewer)
    qtbot.addWidget(dock)
    dock.opener.open([tmp_path / "from_scanner"])
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=60_000)
    assert dock.message.text() or viewer.layers
    said = [label.text() for label in dock.findChildren(QLabel)]
    said += [f"{part.toolTip()} {part.accessibleName()} {part.windowTitle()}" for part in dock.findChildren(QWidget)]
    said += [box.itemText(i) for box in dock.findChildren(QComboBox) for i in range(box.count())]
    table = dock.opener.series.table
    cells = [table.index(row, column) for row in range(table.rowCount()) for column in range(table.columnCount())]
    said += [str(table.data(cell, role)) for cell in cells for role in (0, 3)]
    said += [repr((layer.name, layer.source, layer.help)) for layer in viewer.layers]
    said += [text for layer in viewer.layers for text in texts(layer.metadata) if isinstance(text, str)]
    said += [record.message for record in notification_manager.records]
    assert not [text for text in said if leaks(text)]
    assert not leaks(caplog.text)


@pytest.mark.parametrize(
    "folder", ["SECRETNAME", "name_secret", "NameSecret_2019", "sécret", "x_19010203", "03.02.1901", "1901-02-03_MR"]
)
def test_a_case_is_not_named_after_a_folder_that_names_the_patient(tmp_path: Path, folder: str):
    (path, *_) = write_named(tmp_path)
    path.parent.rename(tmp_path / folder)
    (case,) = find_cases(tmp_path / folder)
    assert case.name.startswith("patient-")
    assert find_cases(tmp_path / folder, keep_names=True)[0].name == "SECRET_NAME_2024-02-29"


def test_a_folder_that_names_nobody_names_its_case(tmp_path: Path):
    (path, *_) = write_named(tmp_path)
    path.parent.rename(tmp_path / "trial_017")
    assert find_cases(tmp_path / "trial_017")[0].name == "trial_017"


def test_labels_of_a_scanner_are_not_named_after_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from napari_braintumor import readers

    paths = write_named(tmp_path)
    array, grid = read_series(paths)
    labels = np.zeros(array.shape, np.uint8)
    labels[2:4, 20:30, 20:30] = 2
    path = paths[0].with_name("SECRET_NAME_seg.dcm")
    write_segmentation(labels, grid, path, Legend({2: "edema"}, {2: "#00ff00"}, {"edema": (2,)}, {"model": "toy"}))
    ((_, options, _),) = readers.read_layers(path)
    assert options["name"] == "Brain tumor segmentation"
    assert not [text for text in texts(options) if leaks(text)]
    path.write_bytes(path.read_bytes()[:-400])
    shown: list[str] = []
    monkeypatch.setattr(readers, "show_warning", shown.append)
    with pytest.raises(BrainTumorError) as raised:
        readers.read_layers(path)
    assert not leaks(" ".join([str(raised.value), *shown]))


def test_an_unexpected_error_can_be_reported_without_the_patient(
    scans: Path, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from napari.components import ViewerModel
    from napari.utils.notifications import notification_manager
    from qtpy.QtWidgets import QApplication

    from napari_braintumor.engine.files import reading
    from napari_braintumor.widgets.segmenting.dock import SegmentDock

    def fail(paths: Any, *_: Any, **__: Any) -> Any:
        data = pydicom.dcmread(next(iter(paths)))
        raise ValueError(f"{data.PatientName} {data.PatientBirthDate} in {paths}")

    caplog.set_level(logging.DEBUG)
    notification_manager.records.clear()
    monkeypatch.setattr(reading, "_read_image", fail)
    dock = SegmentDock(ViewerModel())
    qtbot.addWidget(dock)
    dock.opener.open([scans])
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=60_000)
    assert "should not: ValueError. Copy the details" in dock.message.text()
    dock.message.details_button.click()
    copied = QApplication.clipboard().text()
    assert "in _try_to_read" in copied  # where it arose
    result = run(app, ["segment", str(scans), "-o", str(tmp_path / "out"), "--verbose"])
    assert "Unexpected error: ValueError." in result.output
    assert "in _try_to_read" in result.output
    said = [copied, dock.message.text(), result.output, caplog.text]
    said += [record.message for record in notification_manager.records]
    assert not [text for text in said if leaks(text)]
