"""What a de-identified radiograph may say, and in which words: nothing free, everything from a list or a range.

An attribute that is kept is kept only as a term, a number or a code that the standard or this list knows: a station or
a name typed into Manufacturer Model Name is as gone as the name itself.

Source: DICOM PS3.15 E.1 (what is not needed goes), PS3.3 C.7.6.1, C.8.11 (defined terms), PS3.16 Annex L (body parts).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache

from pydicom.config import IGNORE
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

SIGNIFICANT = 4  # digits of a kept number: enough for physics, too few for a record number
UNKNOWN_MAKER, UNKNOWN_MODEL = "maker", "model"

_BODY_PARTS = """
ABDOMEN ACJOINT ANKLE ARM BREAST CALCANEUS CERVICALSPINE CHEST CLAVICLE COCCYX CSPINE CTSPINE ELBOW EXTREMITY FEMUR
FIBULA FINGER FOOT FOREARM HAND HEAD HIP HUMERUS JAW KNEE LEG LOWERLEG LSPINE LSSPINE LUMBARSPINE MANDIBLE MAXILLA
NASALBONE NECK ORBIT PATELLA PELVIS RADIUS RADIUSULNA RIB RIBS SACRUM SCAPULA SCJOINT SHOULDER SIJOINT SKULL SPINE
SSPINE STERNUM TARSAL THIGH THORACICSPINE THORAX THUMB TIBIA TIBIAFIBULA TMJ TOE TSPINE ULNA UPPERARM WHOLEBODY
WRIST ZYGOMA
"""
BODY_PARTS = frozenset(_BODY_PARTS.split())
_VIEWS = "AP PA DP PD LL RL LAT LATERAL ML LM LLD RLD LLO RLO LPO RPO LAO RAO OBL OBLIQUE AXIAL TANGENTIAL"
VIEWS = frozenset(_VIEWS.split())
VIEW_WORDS = {
    "oblique": "oblique",
    "antero": "antero-posterior",
    "postero": "postero-anterior",
    "frontal": "frontal",
    "lateral": "lateral",
}
RESCALED = frozenset(("US", "HU", "OD", "OD REL", "UNSPECIFIED", "MGML", "Z_EFF", "ED"))
TERMS: dict[str, frozenset[str]] = {
    "Modality": frozenset(("CR", "DX", "RG", "OT")),
    "PresentationIntentType": frozenset(("FOR PRESENTATION", "FOR PROCESSING")),
    "ViewPosition": VIEWS,
    "BodyPartExamined": BODY_PARTS,
    "ImageLaterality": frozenset("LRBU"),
    "Laterality": frozenset("LRBU"),
    "PatientSex": frozenset("FMO"),
    "PhotometricInterpretation": frozenset(("MONOCHROME1", "MONOCHROME2")),
    "PixelIntensityRelationship": frozenset(("LIN", "LOG", "DISP")),
    "RescaleType": RESCALED,
    "ModalityLUTType": RESCALED,
    "PresentationLUTShape": frozenset(("IDENTITY", "INVERSE")),
    "BurnedInAnnotation": frozenset(("YES", "NO")),
    "LossyImageCompression": frozenset(("00", "01")),
}
ORIENTATIONS = re.compile(r"[LRAPHF]{1,3}")
IMAGE_TYPES = (frozenset(("ORIGINAL", "DERIVED")), frozenset(("PRIMARY", "SECONDARY")))
RANGES: dict[str, tuple[float, float]] = {
    "KVP": (1, 500),
    "Exposure": (0, 10_000),
    "ExposureTime": (0, 100_000),
    "ExposureIndex": (0, 100_000),
    "TargetExposureIndex": (0, 100_000),
    "DeviationIndex": (-100, 100),
    "PixelSpacing": (0.001, 10),
    "ImagerPixelSpacing": (0.001, 10),
    "RescaleIntercept": (-100_000, 100_000),
    "RescaleSlope": (-100_000, 100_000),
    "WindowCenter": (-100_000, 100_000),
    "WindowWidth": (0, 200_000),
}
WHOLE = (
    "SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelIntensityRelationshipSign", "SmallestImagePixelValue", "LargestImagePixelValue",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip
LISTS_OF_CODES = (
    "ViewCodeSequence", "ViewModifierCodeSequence", "AnatomicRegionSequence", "AnatomicRegionModifierSequence"
)  # fmt: skip
LUTS = ("ModalityLUTSequence", "VOILUTSequence")
REFERENCES = ("ReferencedImageSequence", "SourceImageSequence")

# As a device states its maker -> as it is kept. Trade names only; longest first, so that none hides in another.
MAKERS = {
    "osteoflow phantoms": "Osteoflow Phantoms",
    "second phantom works": "Second Phantom Works",
    "konica": "Konica Minolta",
    "carestream": "Carestream",
    "kodak": "Kodak",
    "fuji": "Fujifilm",
    "agfa": "Agfa",
    "philips": "Philips",
    "siemens": "Siemens",
    "general electric": "GE",
    "ge healthcare": "GE",
    "ge medical": "GE",
    "canon": "Canon",
    "shimadzu": "Shimadzu",
    "samsung": "Samsung",
    "toshiba": "Toshiba",
    "hologic": "Hologic",
    "swissray": "Swissray",
    "mindray": "Mindray",
    "united imaging": "United Imaging",
    "drtech": "DRTECH",
    "rayence": "Rayence",
    "vieworks": "Vieworks",
    "iray": "iRay",
    "sedecal": "Sedecal",
    "varian": "Varian",
}
_MODELS = """
DRAWNDX1 PORTABLE7 CR500 CR825 CR850 CR900 CR950 CR975 DRX1 DRXEVOLUTION DRXREVOLUTION DIRECTVIEWCR950 IRS FCR
FCR5000 FCRPROFECT FCRXG1 FCRXG5000 ADC5156 ADC5155 CR30X CR35X CR75 CR85X DXD100 DXD300 DXD400 DXD600
DIGITALDIAGNOST DIGITALDIAGNOSTC90 ESSENTADR MOBILEDIAGNOST PCR PCRELEVA ARISTOS ARISTOSFX AXIOMARISTOS YSIO
YSIOMAX YSIOXPREE MULTIX MULTIXFUSION MULTIXIMPACT MOBILETT MOBILETTXP LUMINOS DEFINIUM DEFINIUM5000 DEFINIUM6000
DEFINIUM8000 DISCOVERYXR650 DISCOVERYXR656 OPTIMAXR220 OPTIMAXR240 REVOLUTIONXQI REVOLUTIONXRD THUNDERPLATFORM
REGIUS REGIUS110 REGIUS170 REGIUS190 AERODR AERODR2 CXDI CXDI50G CXDI55G CXDI701C RADSPEED MOBILEART SONIALVISION
GC80 GC85A GM85 XGEO DIGIEYE RADNEXT
"""
MODELS = frozenset(_MODELS.split())


def term(name: str, value: str) -> str | None:
    """`value` of the code string `name` when it is one of its terms, else None."""
    plain = value.strip().upper()
    if name == "BodyPartExamined":
        plain = "".join(letter for letter in plain if "A" <= letter <= "Z")
    elif name == "ViewPosition":
        plain = plain.replace(" ", "")
    return plain if plain in TERMS[name] else None


def number(name: str, value: object) -> float | None:
    """A decimal inside what `name` can physically be, to four digits, else None."""
    try:
        exact = float(str(value))
    except ValueError:
        return None
    low, high = RANGES[name]
    return float(f"{exact:.{SIGNIFICANT}g}") if math.isfinite(exact) and low <= exact <= high else None


def standard_uid(value: str) -> str | None:
    """A UID of the standard itself (a SOP class); one of a sender's own could carry anything."""
    uid = UID(value.strip(), validation_mode=IGNORE)  # its warning would quote what the sender wrote
    return str(uid) if uid.name != uid else None


def device(maker: str, model: str, hidden: Callable[[str, str], str]) -> tuple[str, str]:
    """Maker and model as they may be kept: known trade names, else a keyed pseudonym that still tells devices apart.

    Args:
        hidden: makes the pseudonym of (kind, text).
    """
    low = " ".join(maker.lower().split())
    known = next((name for words, name in MAKERS.items() if words in low), "GE" if low == "ge" else None)
    plain = "".join(letter for letter in model.upper() if letter.isalnum())
    return (
        known or (f"{UNKNOWN_MAKER}-{hidden(UNKNOWN_MAKER, low)[:6]}" if low else ""),
        " ".join(model.split())
        if plain in MODELS
        else (f"{UNKNOWN_MODEL}-{hidden(UNKNOWN_MODEL, model.strip().lower())[:6]}" if model.strip() else ""),
    )


def coded(value: str, scheme: str, meaning: str) -> tuple[str, str, str] | None:
    """(value, scheme, meaning) of a code that the standard knows, its meaning in the standard's words.

    A view that is coded otherwise keeps the projection its meaning names, under no code.
    """
    known = _meanings().get(Code(value.strip(), scheme.strip(), ""))
    projection = _projection(known or meaning)
    if known is None:
        return ("", "", projection) if projection else None
    return value.strip(), scheme.strip(), projection or known


def _projection(meaning: str) -> str | None:
    plain = "".join(letter for letter in meaning.lower() if letter.isalpha())
    if "oblique" in plain:
        return "oblique"
    if "antero" in plain and "postero" in plain:  # "antero-posterior" holds both: the first says which way
        return VIEW_WORDS["antero" if plain.index("antero") < plain.index("postero") else "postero"]
    return next((word for found, word in VIEW_WORDS.items() if found in plain), None)


@cache
def _meanings() -> dict[Code, str]:
    """The codes of the standard's context groups (0.5 s, once a process that meets a code)."""
    return {code: code.meaning for scheme in (codes.SCT, codes.DCM) for code in scheme.concepts.values()}
