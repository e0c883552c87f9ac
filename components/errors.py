"""Every error Osteoflow raises on purpose, as the reader should act on it.

    OsteoflowError
      ConfigError          fix params.yaml or the environment; nothing ran
      DataError            these files cannot be used; fix or remove them
        UnreadableImage      not a radiograph this version can decode
        MissingPatient       an image without the patient it belongs to
        UnknownLabel         a label outside the vocabulary
        UnknownReader        a read in the name of somebody who is no reader here
        PatientLeak          one patient on two sides of the split
        ExpectationsFailed   the data set breaks its contract
        BundleCorrupt        a release bundle whose parts do not match its manifest
        LedgerCorrupt        the decision ledger's chain of hashes or a signature is broken
      PromotionRefused     a gate or a rule said no
      Unavailable          a service is down; the only error that is retried

A message says where, how many, expected and found, and which step fixes it. It carries pseudonyms and
counts only: never a name, a date of birth, a path that names a person, or pixel content.
"""


class OsteoflowError(Exception):
    """Base of the tree; the command line prints it as one line and exits with 1."""


class ConfigError(OsteoflowError):
    """params.yaml or the environment is wrong; nothing ran."""


class DataError(OsteoflowError):
    """These files cannot be used."""


class UnreadableImage(DataError):
    """Not a radiograph this version can decode.

    Args:
        message: what was expected and found.
        reason: a stable snake_case code for tables and counts.
    """

    def __init__(self, message: str, *, reason: str = "unreadable") -> None:
        super().__init__(message)
        self.reason = reason


class MissingPatient(DataError):
    """An image without the patient it belongs to: it could end up on both sides of the split."""


class UnknownLabel(DataError):
    """A label outside the vocabulary (see radiograph/labels.py)."""


class UnknownReader(DataError):
    """A read in the name of somebody whom the roles in the ledger do not name as a reader."""


class PatientLeak(DataError):
    """One patient, or one near-duplicate group, on two sides of the split."""


class ExpectationsFailed(DataError):
    """The data set breaks its contract; the validation report names the rows."""


class BundleCorrupt(DataError):
    """A release bundle whose parts do not match its manifest, or that this version cannot run faithfully."""


class LedgerCorrupt(DataError):
    """The decision ledger's chain of hashes, or a signature in it, is broken."""


class PromotionRefused(OsteoflowError):
    """A gate or a rule said no."""


class Unavailable(OsteoflowError):
    """A service is down; the only error that is retried."""
