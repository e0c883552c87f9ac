"""Benchmark: text in the pixels, what it costs and what is found.

    python -m tests.benchmarks.burned_in --real FOLDER [--images 300] [--out PICTURES]

FOLDER is FracAtlas's (or any folder of JPEGs). Prints the CPU time of the candidate search beside decoding and storing
a picture, recall on text planted into phantoms and real pictures by size, turn, polarity and font, and how many clean
pictures would be touched; `--out` draws those for a person to look at. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.radiograph import burned_in, glyphs, pixels
from components.radiograph.deidentify import Pseudonyms
from components.radiograph.dicom import read
from components.radiograph.glyphs import Area
from components.radiograph.phantom import DETECTOR_A, draw

WORDS = ("MUELLER ANNA", "12.03.1956", "PAT-ID 4711082", "Dr. Weber", "ST. MARY HOSPITAL", "Garcia Lopez, Maria F")
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "cmss10")
HEIGHTS = (10, 14, 20, 32, 56)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--real", type=Path, required=True)
    arguments.add_argument("--images", type=int, default=300)
    arguments.add_argument("--out", type=Path)
    chosen = arguments.parse_args()
    cv2.setNumThreads(1)
    files = sorted(chosen.real.rglob("*.jpg"))
    picked = np.random.default_rng(1).permutation(len(files))
    found = [(files[n], cv2.imread(str(files[n]), cv2.IMREAD_GRAYSCALE)) for n in picked[: chosen.images]]
    real = [(file, image) for file, image in found if image is not None]
    phantoms = [
        read(draw(n, patient=n, detector=DETECTOR_A, fracture=True).dicom, Pseudonyms(bytes(32))).pixels
        for n in range(12)
    ]
    cost(real[0][1])
    clean(real, chosen.out)
    recall("phantoms", [cv2.resize(glyphs._eight(image), None, fx=2, fy=2) for image in phantoms])
    recall("real", [image for _, image in real[:60] if not glyphs.rows(image)])


def cost(image: np.ndarray) -> None:
    """CPU ms on a frame of 2,500 x 2,048 pixels of 12 bits."""
    noise = np.random.default_rng(0).integers(0, 16, (2500, 2048), np.uint16)
    frame = cv2.resize(image, (2048, 2500)).astype(np.uint16) * 16 + noise
    search, store = cpu(lambda: glyphs.rows(frame)), cpu(lambda: pixels.encode(frame))
    text, _ = planted(cv2.resize(image, (2048, 2500)), WORDS[0], FONTS[0], 40, 0, False, np.random.default_rng(0))
    places = glyphs.rows(text)
    print(f"search {search:.1f} ms, storing the frame {store:.0f} ms: {search / store:.1%}; ", end="")
    print(f"reading {len(places)} place(s) {cpu(lambda: burned_in.read(text, places), runs=3):.0f} ms")


def clean(real: list[tuple[Path, np.ndarray]], out: Path | None) -> None:
    """How many real pictures have candidates, and how many would be painted over or refused."""
    candidates, sure, unsure, tiles = 0, 0, 0, []
    start = time.process_time()
    for file, image in real:
        if not (places := glyphs.rows(image)):
            continue
        candidates += 1
        strange = [line for line in burned_in.read(image, places) if not burned_in.is_marker(line.words)]
        doubtful = any(line.sure < burned_in.SURE for line in strange)
        sure, unsure = sure + bool(strange and not doubtful), unsure + doubtful
        if strange and out:
            shown = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
            for line in strange:
                a = line.area
                cv2.rectangle(shown, (a.x, a.y), (a.x + a.width, a.y + a.height), (0, 0, 255), 1)
            tiles.append((file.stem, shown))
    each = (time.process_time() - start) / len(real) * 1000
    print(f"{len(real)} real pictures: {candidates} with candidates, {sure} painted over, {unsure} refused; ", end="")
    print(f"{each:.1f} ms each")
    for name, shown in tiles:
        out.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(out / f"{name}.png"), shown)


def recall(kind: str, images: list[np.ndarray]) -> None:
    """Share of planted lines whose area is touched by what would be painted over or refused."""
    hits: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    random = np.random.default_rng(7)
    for height in HEIGHTS:
        for number in range(48):
            image = images[int(random.integers(len(images)))]
            font, turn, dark = FONTS[number % len(FONTS)], number % 4, number % 8 == 7
            drawn = planted(image, WORDS[int(random.integers(len(WORDS)))], font, height, turn, dark, random)
            if drawn is None:
                continue
            places = [place for place in glyphs.rows(drawn[0]) if place.area.meets(drawn[1])]
            lines = burned_in.read(drawn[0], glyphs.rows(drawn[0])) if places else []
            read_ = any(not burned_in.is_marker(line.words) and line.area.meets(drawn[1]) for line in lines)
            for key in (f"{height} px", f"turned {90 * turn}", "dark on bright" if dark else "bright", font, "all"):
                hits[key].append((bool(places), read_))
    for key, pairs in hits.items():
        stage, whole = (sum(pair[n] for pair in pairs) / len(pairs) for n in (0, 1))
        print(f"{kind:9} {key:16} n={len(pairs):4d}  candidate {stage:.2f}  found {whole:.2f}")


def planted(
    image: np.ndarray, words: str, font: str, height: int, turn: int, dark: bool, random: np.random.Generator
) -> tuple[np.ndarray, Area] | None:
    """A uint8 picture with words in it and where; None when they do not fit."""
    turned = np.ascontiguousarray(np.rot90(image, turn))
    if dark:
        turned[: 3 * height] = 235
    letters = ImageFont.truetype(str(_fonts() / f"{font}.ttf"), round(height * 1.35))
    left, top, right, bottom = letters.getbbox(words)
    width, tall = int(right - left), int(bottom - top)
    if width + 8 > turned.shape[1] or tall + 8 > turned.shape[0]:
        return None
    x = int(random.integers(4, turned.shape[1] - width - 3))
    y = int(random.integers(4, turned.shape[0] - tall - 3)) if not dark else height // 2
    canvas = Image.fromarray(turned)
    ImageDraw.Draw(canvas).text((x - left, y - top), words, fill=10 if dark else 255, font=letters)
    mark = Image.new("L", canvas.size)
    ImageDraw.Draw(mark).text((x - left, y - top), words, fill=255, font=letters)
    where = np.rot90(np.asarray(mark), -turn)
    rows, columns = np.nonzero(where)
    area = Area(int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    return np.ascontiguousarray(np.rot90(np.asarray(canvas), -turn)), area


def _fonts() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def cpu(work: object, runs: int = 7) -> float:
    """Median CPU ms."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()  # type: ignore[operator]
        times.append((time.process_time() - start) * 1000)
    return float(np.median(times))


if __name__ == "__main__":
    main()
