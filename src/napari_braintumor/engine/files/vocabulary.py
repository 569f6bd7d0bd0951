"""Words that scanners, converters and people use in the names of scans; all in lower case."""

from __future__ import annotations

import unicodedata


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


T1_SEQUENCES = _words("mprage mpr memprage mp2rage bravo fspgr spgr tfl tfl3d")
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

SERIES_KINDS: dict[str, frozenset[str]] = {
    "a scout": _words("localizer localiser loc scout aahscout aahead survey surveys locator 3plane smartbrain"),
    "a map computed from a diffusion scan": _words(
        "adc dadc eadc apparent exponential fa colfa tensor fractional aniso"
    ),
    "a perfusion scan, or a map computed from one": _words(
        "perf perfusion dsc dce pwi asl pcasl pasl cbv rcbv relcbv corrcbv cbf rcbf relcbf mtt relmtt ttp tmax pbp gbp",
        "ktrans dynamic dyn leakage",
    ),
    "a diffusion scan": _words("dwi dti diff diffusion trace tracew ep2d epi resolve dki noddi b1000 b800 b500 b0"),
    "a susceptibility or phase image": _words(
        "swi swan swip swip phase pha mag qsm t2star t2s hemo hemoflash star susc susceptibility minip"
    ),
    "a picture of vessels": _words("tof angio angiography mra mrv venogram inhance pcangio phlebo mip"),
    "the difference of two scans": _words("subtraction subtract subtracted sub diffimage"),
    "a map": _words("t1map t2map map maps mapping relaxometry fieldmap fmap rho t1rho"),
    "a scan of brain function": _words("bold fmri"),
    "a spectrum": _words("svs csi spectroscopy spectro probesv probe mrs"),
    "an inversion recovery that is not FLAIR": _words("stir dir"),
    "an image that an MP2RAGE is computed of": _words("inv1 inv2"),
    "a proton density scan": _words("pd pdw"),
    "a scan of the cisterns": _words("ciss fiesta ci3d bffe"),
    "a picture for people, not a scan": _words(
        "posdisp screen screensave screenshot report phoenixzipreport dose processed collage"
    ),
    "a scan of a phantom": _words("phantom qa acr"),
}
"""What a series is by a word of its description, if it is none of the modalities."""
ONLY_ALONE = _words("fa mag dir probe qa")
"""Words of `SERIES_KINDS` that say nothing beside the name of a modality, where they are parameters: ``T1 FA 15``."""
GRADIENT_ECHOES = _words("gre ffe fl2d fl3d swan merge medic")
"""Beside T2 these words mean T2*, which shows blood and calcium."""
FAT_SUPPRESSED = _words("fs fatsat spair spir chess we")
REFORMATTED = _words("reformat reformatted reformation ref rfmt mprs recon resliced mpv")
"""Words of a series that was computed from another one: the same scan cut in another direction."""

CONTRAST = _words(
    "ce gd gad gado gadolinium gadovist dotarem contrast postcontrast postgd postgad kontrast km mitkm nachkm",
    "kontrastmittel contrasted enhanced cplus injected inj injecte injecté injection",
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

OF_SCANNERS = _words("dicom dicoms dcm dicomdir dicomfiles")
"""Folders of one patient's series, named by what exports them."""


def fold_word(word: str) -> str:
    """Return a word as spelled in this module, whatever its letter case and Unicode form."""
    return unicodedata.normalize("NFKC", word).casefold()
