"""Words that scanners, converters and people use in the names of scans; all in lower case."""

from __future__ import annotations

import unicodedata


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


T1_SEQUENCES = _words("mprage mpr memprage bravo fspgr spgr tfl tfl3d")
PLANES = _words("ax axial sag sagittal cor coronal tra trans transversal transverse 3d 2d iso isotropic")
SEQUENCES = T1_SEQUENCES | _words(
    "tse fse frfse sp spc cube vista vibe tfe ffe fl3d fl2d tirm irse blade propeller fatsat spair dixon flash",
    "starvibe thrive lava ns tgse",
)
SEQUENCES_BEHIND = _words("se ir tir space dark fluid da fl fs gre turbo view p2 p3 p4 w wi weighted brain head")
"""Words that only count after the modality; before it they may be a person's initials."""
UNCLEAR_T2 = _words("tirm ir tir")
"""Inversion recovery: a T2 with a long inversion time is FLAIR; with a short one it is not."""
OTHER_SEQUENCES = _words(
    "swi dwi adc dti ep2d epi asl perf perfusion dsc dce pwi cbv rcbv cbf mtt ttp tof angio mra mrv t1map t2map",
    "t2star t2s hemo localizer localiser scout bold fieldmap fmap subtraction subtract minip mip phase diff",
    "diffusion qsm trace stir pdw t1rho rho star map maps relaxometry",
)

CONTRAST = _words(
    "ce gd gad gado gadolinium gadovist dotarem contrast postcontrast postgd postgad kontrast km mitkm nachkm",
    "kontrastmittel contrasted enhanced cplus injected inj injecte injecté",
)
CONTRAST_BEHIND = _words("post c")
"""Before the modality they may be a time point or a person."""
PLAIN = _words("precontrast noncontrast nocontrast unenhanced native nativ nogd nogad noce ohnekm vorkm withoutgd")
NOT = _words("pre without no non not ohne vor sans sin senza avant minus")
TREATMENT = _words(
    "op operation operative surgery surgical resection rt xrt crt radiotherapy radiation chemo tmz treatment therapy",
    "tx biopsy bx craniotomy",
)

TARGET = _words("reg registered coreg coregistered aligned align resliced resampled warped to in into on onto 2")
"""Words between the name of an image and the image that it was registered to."""
REGISTERED = _words("reg registered coreg coregistered aligned align resliced warped warp mni mni152 sri sri24")
STRIPPED = _words(
    "bet bet2 hdbet betted brain stripped strip skullstripped skullstrip noskull deskulled synthstrip robex masked",
    "extracted brainextracted",
)
CORRECTED = _words("bias n4 n4itk bfc biascorr biascorrected unbiased debiased restore")
PROCESSED = _words(
    "norm normalized normalised zscore nyul whitestripe denoised denoise smooth smoothed nlm filtered crop cropped",
    "preproc preprocessed processed defaced resampled corrected",
)

MASK = _words(
    "seg segs segm segmentation dseg mask label labels gt groundtruth gtv roi glistrboost aseg aparc wmparc brainmask"
)
TISSUE = _words(
    "brain brainmask bet hdbet head skull aseg aparc tissue tissues wm gm csf ventricle ventricles parenchyma",
    "parcellation wmparc",
)
TUMOR = _words("tumor tumour tumors tumours lesion lesions glioma gtv")
BY_HAND = _words("manual manually manuallycorrected corrected final expert reviewed approved rater reader truth ground")
WEAK = TUMOR | _words("scan scans image images img mri mr vol volume ome head brain skull hd series gbm whole")
"""Words that identify nobody."""
ID = _words("sub subject subj patient patientid pat case pid id participant proband glioma gbm brats lgg hgg")
"""Words that may precede a patient's number."""
OF_ANYBODY = _words(
    "data dataset datasets images image imagestr imagests labelstr train training val validation test testing cohort",
    "cases scans mri nifti nii raw study patients subjects derivatives hgg lgg tmp out output results input",
)
"""Folders of many patients."""


def fold_word(word: str) -> str:
    """Return a word as spelled in this module, whatever its letter case and Unicode form."""
    return unicodedata.normalize("NFKC", word).casefold()
