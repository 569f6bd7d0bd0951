"""DICOM reports of measurements (TID 1500): volumes and diameters of the segments of a segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from napari_braintumor.engine.files.dicom.quiet import unheard
from napari_braintumor.engine.files.dicom.referring import PROGRAM, Images
from napari_braintumor.engine.files.dicom.segmentation import SERIES_NUMBER, Segment, code_of
from napari_braintumor.engine.volumes import Sizes

_ML = Code("mL", "UCUM", "milliliter")
_DEVICE = "1.2.826.0.1.3680043.8.498.64087541983066532745105296071124578303"
"""This program as an observer; the same in all reports."""


def make_report(
    sizes: Mapping[str, Sizes],
    segmentation: Dataset,
    segments: Sequence[Segment],
    images: Images,
    provenance: Mapping[str, Any],
) -> Dataset:
    """Make a structured report of the sizes of regions, which refers to their segments.

    Parameters
    ----------
    sizes
        The sizes of each segment, by its name; segments that are not listed are left out.
    segmentation, segments
        From `make_segmentation`.
    images
        The series that it refers to.
    provenance
        As in `Legend`.

    Returns
    -------
    Dataset
        The report, with the patient of the series.
    """
    with unheard():
        made = _make(sizes, segmentation, segments, images, provenance)
        images.copy_patient(made)
    return made


def _make(
    sizes: Mapping[str, Sizes],
    segmentation: Dataset,
    segments: Sequence[Segment],
    images: Images,
    provenance: Mapping[str, Any],
) -> Dataset:
    import highdicom as hd

    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=_DEVICE, name=PROGRAM, manufacturer_name=PROGRAM, model_name=PROGRAM, serial_number=version(PROGRAM)
        ),
    )
    groups = [
        _group(segment, sizes[segment.name], segmentation, images, provenance)
        for segment in segments
        if segment.name in sizes
    ]
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.BrainMRI,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    made: Dataset = hd.sr.Comprehensive3DSR(
        evidence=[_without_names(each) for each in (segmentation, *images.headers.values())],
        content=content[0],
        series_instance_uid=generate_uid(),
        series_number=SERIES_NUMBER + 1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=PROGRAM,
        manufacturer_model_name=PROGRAM,
        software_versions=version(PROGRAM),
        device_serial_number="0",
        series_description="Brain tumor measurements",
        is_complete=True,
    )
    return made


def _group(segment: Segment, sizes: Sizes, segmentation: Dataset, images: Images, provenance: Mapping[str, Any]) -> Any:
    import highdicom as hd

    model = str(provenance.get("model") or "")
    values = (
        (codes.SCT.Volume, sizes.volume_ml, _ML),
        (codes.SCT.LongAxis, sizes.axial_mm, codes.UCUM.Millimeter),
        (codes.SCT.PerpendicularAxis, sizes.across_mm, codes.UCUM.Millimeter),
        (codes.cid7470.Maximum3DDiameterOfAMesh, sizes.longest_mm, codes.UCUM.Millimeter),
    )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=segment.uid, identifier=segment.name[:64]),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=segment.number,
            source_series=hd.sr.SourceSeriesForSegmentation(images.first.SeriesInstanceUID),
        ),
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        finding_type=code_of(segment.name),
        finding_sites=[hd.sr.FindingSite(anatomic_location=codes.SCT.Brain)],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=model, version=str(provenance.get("model_version") or "unknown")
        )
        if model
        else None,
        measurements=[
            hd.sr.Measurement(name=name, value=round(value, 3), unit=unit)
            for name, value, unit in values
            if value is not None
        ],
    )


def _without_names(header: Dataset) -> Dataset:
    """Return what identifies an object, without what names anybody: highdicom logs odd names."""
    plain = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(plain, keyword, header[keyword].value)
    for keyword in (
        "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
        "StudyTime",
    ):  # fmt: skip
        setattr(plain, keyword, None)
    return plain
