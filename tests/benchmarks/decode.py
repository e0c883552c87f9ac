"""Benchmark: every decoder that is installed, on one drawn frame in every transfer syntax (`make bench-decode`).

Prints medians of one run on this machine, their ratio to what pydicom picks, and whether the values are the same; the
one that the product uses is marked. `components/radiograph/decoders.py` names the choices.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import statistics
import time

import cv2
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder, get_encoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID, RLELossless

from components.radiograph import decoders, dicom
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.phantom import DETECTOR_A, draw
from tests.radiograph.test_golden import SYNTAXES


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=2560)
    arguments.add_argument("--columns", type=int, default=2048)
    arguments.add_argument("--runs", type=int, default=5)
    chosen = arguments.parse_args()
    source, frame = phantom(chosen.rows, chosen.columns)
    decoders.register()
    print(f"{chosen.rows} x {chosen.columns}, 12 bits of 16, CPU ms, median of {chosen.runs}; * is used, = is exact")
    print(f"{'transfer syntax':<32}{'decoder':<14}{'ms':>8}{'x faster':>10}  values")
    for name, (uid, encode, most, _) in SYNTAXES.items():
        if encode is None and UID(uid) != RLELossless:
            continue
        pixels = (frame >> 4).astype(np.uint8) if most == 8 else frame
        bits = 8 if most == 8 else 12
        data = encode(pixels, bits) if encode else rle(pixels)
        dataset = described(source, uid, pixels, bits, data)
        decoder = get_decoder(UID(uid))
        own = list(decoder._available)  # in the order pydicom tries them; ours stands at its end
        times = {plugin: timed(decoder, dataset, plugin, chosen.runs) for plugin in own}
        first = next(plugin for plugin in own if plugin != decoders.OURS and times[plugin] is not None)
        for plugin in own:
            took = times[plugin]
            if took is None:
                print(f"{name:<32}{plugin:<14}{'-':>8}{'-':>10}  does not decode it")
                continue
            apart = np.abs(took[1].astype(int) - pixels.astype(int)).max()
            mark = "*" if decoders.CHOSEN.get(UID(uid)) == plugin else " "
            ratio = times[first][0] / took[0]
            said = "=" if apart == 0 else f"apart by {apart} (lossy)"
            print(f"{name:<32}{mark + plugin:<14}{took[0]:>8.0f}{ratio:>10.1f}  {said}")
    whole(source, chosen.runs)


def phantom(rows: int, columns: int) -> tuple[Dataset, np.ndarray]:
    """(its header, (rows, columns) uint16 of 12 bits): a drawn limb at this size, with the detector's noise."""
    scale = DETECTOR_A.rows / rows
    detector = dataclasses.replace(DETECTOR_A, rows=rows, columns=columns, pitch_mm=DETECTOR_A.pitch_mm * scale)
    source = pydicom.dcmread(io.BytesIO(draw(5, patient=1, detector=detector, fracture=True).dicom))
    return source, cv2.min(source.pixel_array, 4095)


def rle(pixels: np.ndarray) -> bytes:
    options = {"rows": pixels.shape[0], "columns": pixels.shape[1], "samples_per_pixel": 1, "number_of_frames": 1}
    options |= {"bits_allocated": 16, "bits_stored": 12, "pixel_representation": 0}
    return get_encoder(RLELossless).encode(pixels, photometric_interpretation="MONOCHROME2", **options)


def described(source: Dataset, uid: str, pixels: np.ndarray, bits: int, frame: bytes) -> Dataset:
    dataset = Dataset()
    for element in source:
        if element.keyword != "PixelData":
            dataset[element.tag] = pydicom.DataElement(element.tag, element.VR, element.value)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = pixels.itemsize * 8, bits, bits - 1
    dataset.add_new("PixelData", "OB", encapsulate([frame]))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(uid)
    return dataset


def timed(decoder: Decoder, dataset: Dataset, plugin: str, runs: int) -> tuple[float, np.ndarray] | None:
    """(CPU ms, the values); None where this decoder cannot."""
    took = []
    for _ in range(runs):
        started = time.process_time()
        try:
            values, _ = decoder.as_array(dataset, decoding_plugin=plugin)
        except RuntimeError:
            return None
        took.append(1000 * (time.process_time() - started))
    return statistics.median(took), values


def whole(source: Dataset, runs: int) -> None:
    """A native file from bytes to radiograph, beside pydicom alone, which neither checks nor maps anything."""
    buffer = io.BytesIO()
    source.save_as(buffer)
    data, pseudonyms = buffer.getvalue(), Pseudonyms(bytes(32))
    rivals = {
        "dicom.read": lambda: dicom.read(data, pseudonyms),
        "dcmread + pixel_array": lambda: pydicom.dcmread(io.BytesIO(data)).pixel_array,
    }
    for name, call in rivals.items():
        took = []
        for _ in range(runs):
            started = time.process_time()
            call()
            took.append(1000 * (time.process_time() - started))
        print(f"{'native, whole file':<32}{name:<24}{statistics.median(took):>6.1f} ms")


if __name__ == "__main__":
    main()
