"""Benchmark: is one picture, filed twice, known again, and are two people in one pose told apart; and what it costs.

    python -m tests.benchmarks.near_duplicates FRACATLAS [--plant 300] [--sizes 1000 10000 100000] [--sheet FILE.png]

Copies of real radiographs are planted; pairs of the archive itself are compared with what a person saw who looked at
them side by side (ONE_PICTURE; --sheet draws the pairs to look again). The threshold is chosen on one half of both and
measured on the other. "Before" is the perceptual hash alone, at 4 bits. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from components.dataset.keys import write_keyed
from components.dataset.match import match
from components.dataset.neighbours import neighbours
from components.dataset.places import EXCLUDED, deal
from components.params import Match, Params, load
from components.radiograph import raster
from components.radiograph.likeness import SIDE, likeness, thumbnail
from components.radiograph.quality import phash

BEFORE = 4  # bits
GRID = np.arange(0.90, 0.996, 0.005)
REPOSITORY = Path(__file__).resolve().parents[2]
# FracAtlas image numbers that show one picture: same bones, same pose to the pixel, after a crop or another encoding.
# All 85 pairs within 4 bits and all within 12 bits of likeness .95 or more were looked at.
ONE_PICTURE = (
    (2945, 4266), (2846, 4209), (2653, 4068), (2935, 4217), (2668, 4061), (2647, 4071), (2746, 4117), (2904, 4232),
    (239, 240), (2848, 4206),
)  # fmt: skip

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def jpeg(quality: int) -> Change:
    return lambda p, _: cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)


def resized(scale: float) -> Change:
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return lambda p, _: cv2.resize(p, None, fx=scale, fy=scale, interpolation=way)


def cropped(share: float) -> Change:
    def change(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
        cut = [int(side * share) for side in picture.shape]
        top, left = (int(random.integers(0, c + 1)) for c in cut)
        return picture[top : picture.shape[0] - cut[0] + top, left : picture.shape[1] - cut[1] + left]

    return change


def toned(contrast: float, brightness: float, gamma: float = 1.0) -> Change:
    def change(picture: np.ndarray, _: np.random.Generator) -> np.ndarray:
        bent = 255 * (picture / 255.0) ** gamma
        return np.clip(contrast * bent + brightness, 0, 255).astype(np.uint8)

    return change


def turned(degrees: float) -> Change:
    def change(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
        rows, columns = picture.shape
        turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), degrees * random.choice((-1, 1)), 1)
        return cv2.warpAffine(picture, turn, (columns, rows), borderMode=cv2.BORDER_REPLICATE)

    return change


def marked(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    rows, columns = picture.shape
    where = (int(columns * random.uniform(0.05, 0.45)), int(rows * random.uniform(0.1, 0.9)))
    size = rows / 400
    return cv2.putText(picture.copy(), "L 1234", where, cv2.FONT_HERSHEY_SIMPLEX, size, 255, max(1, round(2 * size)))


COPIES: dict[str, Change] = {
    "JPEG, quality 90": jpeg(90), "JPEG, quality 50": jpeg(50), "JPEG, quality 20": jpeg(20),
    "half the size": resized(0.5), "1.5 times the size": resized(1.5),
    "cropped by 2%": cropped(0.02), "cropped by 4%": cropped(0.04), "cropped by 6%": cropped(0.06),
    "brighter by 10%": toned(1, 25), "darker by 8%": toned(1, -20), "contrast 1.3": toned(1.3, -30),
    "gamma 0.7": toned(1, 0, 0.7), "gamma 1.4": toned(1, 0, 1.4),
    "turned by 1 degree": turned(1), "turned by 2 degrees": turned(2), "turned by 3 degrees": turned(3),
    "marker text": marked,
}  # fmt: skip
OTHERS: dict[str, Change] = {  # left is not right: these are other pictures
    "mirrored": lambda p, _: np.ascontiguousarray(p[:, ::-1]),
    "upside down": lambda p, _: np.ascontiguousarray(p[::-1]),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, help="FracAtlas, as published")
    arguments.add_argument("--plant", type=int, default=300, help="images that every copy is made of")
    arguments.add_argument("--sizes", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    arguments.add_argument("--sheet", type=Path, help="draw the pairs of likeness .95 or more")
    chosen = arguments.parse_args()
    whole = load(REPOSITORY / "params.yaml")
    params = whole.match
    numbers, pictures = archive(chosen.folder)
    codes = np.array([code(picture) for picture in pictures], np.uint64)
    thumbnails = np.stack([thumbnail(picture) for picture in pictures])
    begin = time.perf_counter()
    pairs = neighbours(codes, params.bits)
    searched = time.perf_counter()
    alike = likeness(thumbnails, pairs)
    each = (time.perf_counter() - searched) / max(1, len(pairs))
    print(
        f"{len(pictures)} images, {len(pairs)} pairs within {params.bits} bits: search "
        f"{searched - begin:.2f} s, registration {1e6 * each:.0f} microseconds a pair"
    )
    real(numbers, codes, pairs, alike, whole)
    planted(pictures, codes, thumbnails, chosen.plant, params, (pairs, alike, truth(numbers, pairs)))
    if chosen.sheet:
        draw(chosen.sheet, numbers, pictures, pairs, alike)
    cost(codes, chosen.sizes, params, each)


def archive(folder: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Image numbers and (rows, columns) uint8 pictures: what decodes, exact duplicates once."""
    found: dict[bytes, tuple[int, np.ndarray]] = {}
    for path in sorted((folder / "images").rglob("*.jpg"), key=lambda path: path.name):
        try:
            pixels = raster.read_raster(path.read_bytes(), max_megapixels=100).pixels
        except Exception:  # noqa: BLE001  (truncated files are another benchmark's)
            continue
        found.setdefault(f"{pixels.shape}".encode() + pixels.tobytes(), (int(path.stem[3:]), pixels))
    return np.array([number for number, _ in found.values()]), [pixels for _, pixels in found.values()]


def code(picture: np.ndarray) -> int:
    return int(phash(picture), 16)


def truth(numbers: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.array([tuple(sorted(pair)) in ONE_PICTURE for pair in numbers[pairs].tolist()])


def real(numbers: np.ndarray, codes: np.ndarray, pairs: np.ndarray, alike: np.ndarray, params: Params) -> None:
    """The archive's own pairs: how many of those confirmed are one picture, and how many images the split excludes."""
    same, patients = truth(numbers, pairs), [str(number // 10) for number in numbers]
    bits = np.bitwise_count(codes[pairs[:, 0]] ^ codes[pairs[:, 1]])
    print(
        f"\n{'the archive itself':<24}{'confirmed':>10}{'one picture':>13}{'of those known':>16}{'images excluded':>17}"
    )
    for name, kept in (
        (f"before: {BEFORE} bits", bits <= BEFORE),
        (f"now: likeness {params.match.likeness:g}", alike >= params.match.likeness),
    ):
        out = deal(patients, pairs[kept], params.split)[0].count(EXCLUDED)
        print(f"{name:<24}{kept.sum():>10}{same[kept].sum():>13}{f'{len(ONE_PICTURE)}':>16}{out:>17}")
    others = ", ".join(f"{value:.3f}" for value in np.sort(alike[~same])[::-1][:5])
    print(f"least alike of one picture {alike[same].min():.3f}; most alike of two {others}")


def planted(
    pictures: list[np.ndarray],
    codes: np.ndarray,
    thumbnails: np.ndarray,
    count: int,
    params: Match,
    own: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Recall on copies, by kind; the threshold from even images and pairs, the figures from odd ones."""
    random = np.random.default_rng(0)
    chosen = np.sort(random.choice(len(pictures), min(count, len(pictures)), replace=False))
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, change in (COPIES | OTHERS).items():
        made = [change(pictures[n], random) for n in chosen]
        bits = np.bitwise_count(codes[chosen] ^ np.array([code(copy) for copy in made], np.uint64))
        both = np.concatenate([thumbnails[chosen], np.stack([thumbnail(copy) for copy in made])])
        ends = np.stack([np.arange(len(chosen)), np.arange(len(chosen)) + len(chosen)], axis=1)
        found[name] = bits, np.where(bits <= params.bits, likeness(both, ends), 0)
    half = np.arange(len(chosen)) % 2 == 1
    pairs, alike, same = own
    tried = np.arange(len(pairs)) % 2 == 0
    clean = [t for t in GRID if not np.any(alike[tried & ~same] >= t)]
    print(f"\nsmallest threshold without a wrong pair on the calibration half: {min(clean):.3f}")
    limit = params.likeness
    wrong = int((alike[~tried & ~same] >= limit).sum())
    print(f"on the other half, at {limit:g}: {wrong} wrong pair(s) of {int((alike[~tried] >= limit).sum())} confirmed")
    print(f"\n{'copies on the other half':<24}{'before':>8}{'proposed':>10}{'confirmed':>11}   (n = {half.sum()} each)")
    for name, (bits, value) in found.items():
        shares = [bits[half] <= BEFORE, bits[half] <= params.bits, value[half] >= limit]
        print(f"{name:<24}" + "".join(f"{share.mean():>{w}.3f}" for share, w in zip(shares, (8, 10, 11), strict=True)))
    rows = [found[name] for name in COPIES]
    before = np.mean([bits[half] <= BEFORE for bits, _ in rows])
    print(f"{'all copies':<24}{before:>8.3f}{'':>10}{np.mean([value[half] >= limit for _, value in rows]):>11.3f}")


def cost(real_codes: np.ndarray, sizes: list[int], params: Match, each: float) -> None:
    """Seconds of the search, the step, and the step for 100 images more: hashes at random, and as the archive's crowd.

    Args:
        each: seconds of a registration, for the crowded hashes; they have no pictures.
    """
    print(f"\n{'':>8}{'random hashes':>30}{'crowded hashes':>40}   (seconds)")
    print(f"{'images':>8}{'search':>10}{'step':>10}{'100 more':>10}{'search':>12}{'pairs':>12}{'registration':>16}")
    for size in sizes:
        random = np.random.default_rng(size)
        scattered = random.integers(0, 2**64, size, dtype=np.uint64)
        dense = similar(real_codes, size, random)
        first, _ = timed(lambda codes=scattered: neighbours(codes, params.bits))
        second, pairs = timed(lambda codes=dense: neighbours(codes, params.bits))
        whole, more = step(scattered, params)
        crowded = f"{second:>12.2f}{len(pairs):>12}{len(pairs) * each:>16.0f}"
        print(f"{size:>8}{first:>10.2f}{whole:>10.2f}{more:>10.2f}{crowded}")


def similar(codes: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Hashes that crowd as those of `codes` do: each is one of them, but for two bits."""
    flips = np.uint64(1) << random.integers(0, 64, (2, size), dtype=np.uint64)
    return np.asarray(codes[random.integers(0, len(codes), size)] ^ flips[0] ^ flips[1])


def step(codes: np.ndarray, params: Match) -> tuple[float, float]:
    """Seconds of `match` on shards of features of 1,000 rows, and for 100 of these images more."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        features, matches = Path(name, "features"), Path(name, "matches")
        features.mkdir()

        def put(start: int, hashes: list[int]) -> None:
            columns = {
                "image_id": [f"{start + n:020x}" for n in range(len(hashes))],
                "phash": [f"{value:016x}" for value in hashes],
                "thumbnail": [random.bytes(SIDE * SIDE) for _ in hashes],
            }
            write_keyed(features / f"{start:08d}.parquet", pa.table(columns), str(start))

        def run() -> float:
            return timed(lambda: match(features=features, matches=matches, params=params))[0]

        for start in range(0, len(codes), 1000):
            put(start, codes[start : start + 1000].tolist())
        whole = run()
        put(len(codes), codes[:100].tolist())
        return whole, run()


def timed(call: Callable[[], object]) -> tuple[float, object]:
    begin = time.perf_counter()
    made = call()
    return time.perf_counter() - begin, made


def draw(path: Path, numbers: np.ndarray, pictures: list[np.ndarray], pairs: np.ndarray, alike: np.ndarray) -> None:
    """The pairs side by side, most alike first, with likeness and numbers."""
    tiles = []
    for row in [row for row in np.argsort(-alike) if alike[row] >= 0.95]:
        both = np.hstack([cv2.resize(pictures[end], (200, 240)) for end in pairs[row]])
        tile = cv2.copyMakeBorder(both, 24, 4, 4, 4, cv2.BORDER_CONSTANT, value=0)
        words = f"{alike[row]:.3f}  {numbers[pairs[row][0]]}  {numbers[pairs[row][1]]}"
        tiles.append(cv2.putText(tile, words, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
    cv2.imwrite(str(path), np.vstack([np.hstack(tiles[n : n + 4]) for n in range(0, len(tiles), 4)]))


if __name__ == "__main__":
    main()
