"""Writes the stream data/drifting.dat, its sharp frame and its numbers: from formulas, with nothing of the project.

python tests/golden/draw_drifting.py FOLDER

A pattern of waves drifts over a sensor whose pixels fire when their charge is full and keep the rest. All is spelled
out pixel by pixel, so that the project's decoder and representations are measured by something else than themselves.
"""

import json
import math
import random
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np

STEPS, HEIGHT, WIDTH = 88, 48, 80
CENTER, WINDOW = 40, 21  # the sharp frame's step, and the steps around it that are averaged
RATE = 0.5  # spikes per step of a white pixel
DRIFT = 0.3  # pixels a step
SHADE = 4  # columns at the left that see next to nothing, and hardly ever fire


def light(y, x, step):
    """Of a pixel at a step, in [0, 1]: brighter at the top, and unlike itself mirrored."""
    if x < SHADE:
        return 0.03
    x = x + DRIFT * (step - CENTER)
    waves = math.sin(0.55 * x + 0.2 * y) + math.cos(0.7 * y - 0.25 * x) + math.sin(0.9 * x - 0.4 * y + 1)
    return (0.5 + 0.16 * waves) * (1 - 0.4 * y / HEIGHT)


def fire(y, x, charge):
    """The spikes of a pixel that starts with some charge: list of STEPS times 0 or 1."""
    spikes = []
    for step in range(STEPS):
        charge += RATE * light(y, x, step)
        spikes.append(int(charge >= 1))
        charge -= spikes[-1]
    return spikes


def packed(pixels):
    """The bytes of the .dat: step by step, lowest row first, the first pixel in a byte's lowest bit."""
    bits = [
        pixels[y][x][step] for step in range(STEPS) for y in range(HEIGHT - 1, -1, -1) for x in range(WIDTH)
    ]  # fmt: skip
    return bytes(sum(bit << place for place, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


def interval_rate(spikes):
    """1 over the steps between the last spike until CENTER and the first after it; None without both."""
    before = [step for step in range(CENTER + 1) if spikes[step]]
    after = [step for step in range(CENTER + 1, STEPS) if spikes[step]]
    return 1 / (after[0] - before[-1]) if before and after else None


def psnr(rates, sharp):
    errors = [(min(rate / RATE, 1) - gray / 255) ** 2 for rate, gray in zip(rates, sharp, strict=True)]
    return -10 * math.log10(sum(errors) / len(errors))


def numbers(pixels, sharp):
    flat = [spikes for row in pixels for spikes in row]
    ones = [sum(spikes[step] for spikes in flat) for step in range(STEPS)]
    around = slice(CENTER - WINDOW // 2, CENTER + WINDOW // 2 + 1)
    by_window = [sum(spikes[around]) / WINDOW for spikes in flat]
    by_interval = [interval_rate(spikes) for spikes in flat]
    defined = [rate for rate in by_interval if rate is not None]
    return {
        "shape": [STEPS, HEIGHT, WIDTH],
        "mean": sum(ones) / STEPS / len(flat),
        "crc32_of_uint8_array": zlib.crc32(bytes(spikes[step] for step in range(STEPS) for spikes in flat)),
        "ones_per_step_first5": ones[:5],
        "row0_ones": sum(map(sum, pixels[0])),
        "rowlast_ones": sum(map(sum, pixels[-1])),
        "center": CENTER,
        "window": WINDOW,
        "rate": RATE,
        "tfp_mean": sum(by_window) / len(flat),
        "tfp_psnr_vs_gray": psnr(by_window, sharp),
        "tfi_undefined_fraction": by_interval.count(None) / len(flat),
        "tfi_mean_defined": sum(defined) / len(defined),
        "tfi_psnr_vs_gray": psnr([rate or 0 for rate in by_interval], sharp),
    }


def main(folder):
    charge = random.Random(0)
    pixels = [[fire(y, x, charge.random()) for x in range(WIDTH)] for y in range(HEIGHT)]
    sharp = [round(255 * light(y, x, CENTER)) for y in range(HEIGHT) for x in range(WIDTH)]
    (folder / "drifting.dat").write_bytes(packed(pixels))
    cv2.imwrite(str(folder / "drifting_sharp.png"), np.array(sharp, np.uint8).reshape(HEIGHT, WIDTH))
    text = json.dumps({"drifting": numbers(pixels, sharp)}, indent=1)
    (folder / "spikes.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
