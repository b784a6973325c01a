"""Finds the step of the sharp frame in a GoPro+Spike file, and the cost of using the middle of the file instead.

python benchmarks/spike_center.py [--data ../shared/data] [--plot docs/spike_center.png]

PSNR against the sharp frame at each step: TFP against its gray version at spike size, and SDM against its RGB. SDM
needs a blurred RGB frame, which the sample lacks, so it is simulated: dense optical flow between smoothed TFP pictures
at steps 4, 12, .., 76 warps the sharp frame to each of those steps, and the mean of the ten is the blurred frame. It
has the motion seen by the spikes, but none of their noise. It must assume the step of the sharp frame; SDM is therefore
shown for both assumptions. TFP needs no assumption.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.spike.manifest import GOPRO_RATE_AT_WHITE, gopro_timing
from data.spike.representations import sdm, tfp
from utils.spike_loader import read_spikes
from utils.utils_cli import Parser
from utils.utils_colour import to_gray
from utils.utils_image import read_rgb

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZE = (360, 640)
TIMING = gopro_timing("GOPR0384_11_00")  # the sample's clip averages 11 frames, 8 steps each
STEPS = range(36, 49)
WINDOW, FLOW_WINDOW = 21, 9
FLOW_STEPS = range(4, 77, 8)
MIDDLE = TIMING.steps // 2


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of pictures in [0, 1]."""
    return float(-10 * np.log10(np.mean(np.square(a.astype(np.float64) - b))))


def picture(spikes: np.ndarray, step: int, window: int) -> np.ndarray:
    """TFP with white at 1, clipped: (h, w) float32."""
    return np.clip(tfp(spikes, step, window) / np.float32(GOPRO_RATE_AT_WHITE), 0, 1)


def flow_picture(spikes: np.ndarray, step: int) -> np.ndarray:
    """Smoothed TFP with a short window, for optical flow: (h, w) uint8."""
    return np.rint(cv2.GaussianBlur(picture(spikes, step, FLOW_WINDOW), (0, 0), 1.5) * 255).astype(np.uint8)


def simulated_blur(sharp: np.ndarray, spikes: np.ndarray, sharp_step: int) -> np.ndarray:
    """Mean of the sharp frame, assumed at `sharp_step`, warped to each of FLOW_STEPS: (H, W, 3) float32."""
    height, width = sharp.shape[:2]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    target = flow_picture(spikes, sharp_step)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    total = np.zeros_like(sharp)
    for step in FLOW_STEPS:
        small = flow.calc(flow_picture(spikes, step), target, np.zeros((*target.shape, 2), np.float32))
        move = cv2.resize(small, (width, height)) * np.float32(width / target.shape[1])
        total += cv2.remap(sharp, x + move[..., 0], y + move[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return total / np.float32(len(FLOW_STEPS))


def measure(folder: Path) -> dict[str, list[float] | float]:
    """PSNR at each of STEPS, and the agreement of the simulated blur with the spikes."""
    spikes = read_spikes(folder / "spkgopro_000226.dat", *SIZE)
    sharp = read_rgb(folder / "spkgopro_000226_sharp.png").astype(np.float32) / 255
    gray = cv2.resize(to_gray(sharp), SIZE[::-1], interpolation=cv2.INTER_AREA)
    exposure = spikes[slice(*TIMING.exposure)].mean(axis=0, dtype=np.float32)
    result: dict[str, list[float] | float] = {"tfp": [psnr(picture(spikes, step, WINDOW), gray) for step in STEPS]}
    for assumed in (TIMING.sharp_step, MIDDLE):
        blur = simulated_blur(sharp, spikes, assumed)
        blurred_gray = cv2.resize(to_gray(blur), SIZE[::-1], interpolation=cv2.INTER_AREA)
        seen = np.clip(exposure / np.float32(GOPRO_RATE_AT_WHITE), 0, 1)
        result[f"sdm_{assumed}"] = [psnr(sdm(blur, tfp(spikes, step, WINDOW), exposure), sharp) for step in STEPS]
        result[f"blur_{assumed}"] = psnr(blur, sharp)
        result[f"blur_{assumed}_vs_exposure"] = psnr(blurred_gray, seen)
    return result


def plot(result: dict[str, list[float] | float], path: Path) -> None:
    """Plot both PSNR curves over the steps, and mark the sharp step and the middle of the file."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    curves = (
        ("tfp", "TFP against gray", "#1f5fa8", "o"),
        (f"sdm_{TIMING.sharp_step}", "SDM against RGB", "#c2571a", "s"),
    )
    for key, label, color, marker in curves:
        axes.plot(STEPS, result[key], color=color, marker=marker, markersize=4, label=label)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35)
    for step, note in ((TIMING.sharp_step, "4(N-1) = {}"), (MIDDLE, "T/2 = {}")):
        axes.axvline(step, color="0.45", linewidth=0.9, linestyle="--", zorder=0)
        axes.text(step + 0.12, high + 0.18, note.format(step), color="0.25", fontsize=9)
    axes.set(xlabel="spike step at the centre of the window (21 steps)", ylabel="PSNR in dB against the sharp frame")
    axes.set_xticks(list(STEPS))
    axes.set_title("The sharp frame is at step 4(N-1), not in the middle of the file", fontsize=10.5)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left")
    figure.supxlabel(
        "GoPro+Spike frame 000226, N = 11, T = 88. The blurred frame for SDM is simulated: the sharp frame moved by\n"
        "optical flow between TFP pictures of the exposure, averaged; the data sample has no blurred frame of its own.",
        fontsize=7.5, color="0.35",
    )  # fmt: skip
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Print a table, then one JSON line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SAMPLE, help="folder of the sample")
    parser.add_argument("--plot", type=Path, help="write the curves as a picture (needs matplotlib)")
    args = parser.parse_args()
    if not (args.data / "spkgopro_000226.dat").is_file():
        parser.error(f"{args.data}: no spkgopro_000226.dat here; give the folder of the sample with --data")
    result = measure(args.data)
    curves = {key: values for key, values in result.items() if isinstance(values, list)}
    print("PSNR in dB; sdm_N: the simulated blur assumes the sharp frame at step N")
    print(f"{'step':<6}" + "".join(f"{key:>9}" for key in curves))
    for k, step in enumerate(STEPS):
        print(f"{step:<6}" + "".join(f"{values[k]:>9.2f}" for values in curves.values()))
    best = {key: STEPS[int(np.argmax(values))] for key, values in curves.items()}
    cost = {key: max(values) - values[STEPS.index(MIDDLE)] for key, values in curves.items()}
    print(f"{'best':<6}" + "".join(f"{step:>9}" for step in best.values()))
    print(f"{'cost':<6}" + "".join(f"{value:>9.2f}" for value in cost.values()) + f"   best minus step {MIDDLE}")
    for step in (TIMING.sharp_step, MIDDLE):
        seen, blurred = result[f"blur_{step}_vs_exposure"], result[f"blur_{step}"]
        print(f"blurred frame for {step}: {seen:.2f} dB against the spikes, {blurred:.2f} dB against sharp")
    if args.plot:
        plot(result, args.plot)
    print(json.dumps({"window": WINDOW, "steps": list(STEPS), "best": best, "cost_db": cost, **result}))


if __name__ == "__main__":
    main()
