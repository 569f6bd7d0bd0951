from napari_braintumor.engine.files.dicom.listing import list_dicom
from napari_braintumor.engine.files.listing import list_files
from napari_braintumor.engine.files.walking import walk_folders


def test_folders_are_walked_in_natural_order_without_what_is_hidden(tmp_path):
    for name in ("b10", "b9", ".git", "b9/inner"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "10.txt").touch()
        (tmp_path / name / "9.txt").touch()
        (tmp_path / name / ".DS_Store").touch()
    seen = [(str(folder.relative_to(tmp_path)), names) for folder, _, names in walk_folders(tmp_path)]
    assert seen == [(".", []), *((name, ["9.txt", "10.txt"]) for name in ("b9", "b9/inner", "b10"))]


def test_a_folder_that_links_to_itself_is_walked_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert [names for _, _, names in walk_folders(tmp_path)] == [[], ["1.txt"]]
    assert list_files(tmp_path)[1] == [tmp_path / "a" / "1.txt"]
    assert list_dicom([tmp_path]) == []


def test_folders_that_are_cleared_are_not_entered(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    walked = []
    for folder, subfolders, _ in walk_folders(tmp_path):
        walked.append(folder)
        if folder.name == "a":
            subfolders.clear()
    assert walked == [tmp_path, tmp_path / "a"]
