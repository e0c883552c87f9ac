"""From a signed bundle to a result a clinician reads: predictor, service, pages, DICOM results, prediction log."""
