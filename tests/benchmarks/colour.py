"""Benchmark: which pictures are refused as colour (`python -m tests.benchmarks.colour FRACATLAS_IMAGES`).

Parts of three photographs in colour, which should be, and every radiograph of a folder as it is, tinted and marked,
which should not. Prints counts; nothing is asserted.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from components.radiograph.colour import in_colour

SEED = 20261123
PARTS = 200  # of each photograph
QUALITIES = (30, 75, 95)
BLUE, SEPIA = (1.25, 1.1, 0.8), (0.8, 1.0, 1.35)  # powers of red, green and blue over brightness
MARK = 0.05  # of the picture


def photographs() -> dict[str, np.ndarray]:
    """scikit-learn's two and matplotlib's one, (rows, columns, 3) uint8."""
    from matplotlib import cbook

    palace, flower = load_sample_images().images
    portrait = Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    return {"palace": palace, "flower": flower, "portrait": np.asarray(portrait)}


def part(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half to all of either side, anywhere."""
    rows, columns = (int(n * rng.uniform(0.5, 0.95)) for n in picture.shape[:2])
    top, left = rng.integers(picture.shape[0] - rows), rng.integers(picture.shape[1] - columns)
    return np.ascontiguousarray(picture[top : top + rows, left : left + columns])


def jpeg(channels: np.ndarray, quality: int) -> np.ndarray:
    Image.fromarray(channels).save(buffer := io.BytesIO(), "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def tinted(gray: np.ndarray, powers: tuple[float, float, float]) -> np.ndarray:
    return (255 * (gray[..., None] / 255) ** np.array(powers)).astype(np.uint8)


def marked(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of one colour in a corner."""
    channels, side = np.stack([gray] * 3, axis=-1), int((MARK * gray.size) ** 0.5)
    channels[:side, :side] = rng.integers(0, 256, 3)
    return channels


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("images", type=Path)
    rng = np.random.default_rng(SEED)
    for name, picture in photographs().items():
        found = sum(in_colour(jpeg(part(picture, rng), int(rng.choice(QUALITIES)))) for _ in range(PARTS))
        print(f"{name}: {found} of {PARTS} parts", flush=True)
    counts = dict.fromkeys(("as it is", "blue", "sepia", "sepia, JPEG 30", "marked, JPEG 75"), 0)
    total = unread = 0
    for path in sorted(arguments.parse_args().images.rglob("*.jpg")):
        try:
            image = Image.open(path)
            channels = np.asarray(image.convert("RGB"))
        except OSError:
            unread += 1
            continue
        total, gray = total + 1, np.asarray(image.convert("L"))
        sepia = tinted(gray, SEPIA)
        for name, picture in zip(
            counts,
            (channels, tinted(gray, BLUE), sepia, jpeg(sepia, 30), jpeg(marked(gray, rng), 75)),
            strict=True,
        ):
            counts[name] += in_colour(picture)
    print(f"radiographs: {total} read, {unread} not; " + ", ".join(f"{name} {n}" for name, n in counts.items()))


if __name__ == "__main__":
    main()
