import pytest

from napari_braintumor.engine.files.naming import find_modality


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("T1", "T1"), ("t1n", "T1"), ("T1w", "T1"), ("t1ce", "T1ce"), ("t1c", "T1ce"), ("T1Gd", "T1ce"),
        ("t1post", "T1ce"), ("post", "T1ce"), ("T1 post", "T1ce"), ("t1_gd_axial", "T1ce"), ("gd t1", "T1ce"),
        ("anna_post_t1", "T1"), ("c_t1", "T1"), ("t1_c", "T1ce"), ("post_flair", "FLAIR"), ("T1 pre contrast", "T1"),
        ("T2", "T2"), ("t2w", "T2"), ("FLAIR", "FLAIR"), ("t2f", "FLAIR"), ("5_t2_flair_tra", "FLAIR"),
        ("BraTS-GLI-00000-000-t1c", "T1ce"), ("anna", None), ("T1 and T2", None), ("flirt1", None), ("", None),
    ],
)  # fmt: skip
def test_a_modality_is_read_from_the_words_of_a_name(name, modality):
    assert find_modality(name) == modality
