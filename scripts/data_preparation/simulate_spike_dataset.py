"""Turn any sharp video into a data set of sharp, blurred and spike frames in the layout of GoPro+Spike.

A window of N source frames becomes one frame: blurred = their mean, sharp = the middle one, spikes = S steps from each
source frame to the next (S = --steps-per-frame). Windows are contiguous, so the spikes of a clip are one continuous
stream. The blurred frame averages only source frames, like GoPro's.

Light between two source frames (--interpolation):
  flow   both frames warped along their optical flow to each step and averaged by nearness in time; a cross-fade where
         the motion does not explain the frames (occlusions, scene cuts). Reconstructing every second frame of a real
         video of 25 frames per second, this is 3.6 dB better than blend
  blend  a cross-fade: moving objects fade out at one place and in at the next
Large motion between source frames is still guesswork: prefer videos of 120 or more frames per second. A video is read
as in testing. Interlaced and HDR video is refused, because its frames are not the light of one moment.

The sensor (--noise): `none` is the ideal integrate-and-fire pixel; `sensor` adds pixel differences, dark current, shot
noise, threshold jitter, and hot and dead pixels, with the statistics of a real capture (data/spike/sensor_noise.py).
The camera's pixels are drawn from the seed. One data set has one camera, so use one seed for all calls that add to it.
rate_at_white in manifest.json is then the mean rate of its pixels under white light, including dark current.

On request (data/layout.py has the folders): --subframes stores the gray light of every step at the spike grid, from
which training fires spikes anew (`augment` in the options); --instants K stores K of the window's other source frames,
evenly spaced, as sharp frames at other instants: source frame k lies at the fraction k / (N-1) of the exposure.

The exposure covers steps 0 .. S(N-1), the sharp frame is at step S(N-1)/2, and a frame has SN steps; the last frame of
a clip has S-1 fewer if no source frame follows.

Both splits from one video, in two calls:
simulate_spike_dataset.py --video v.mp4 --out datasets/v --split train --range 0:200
simulate_spike_dataset.py --video v.mp4 --out datasets/v --split test --range 200:250

Many recordings, by four processes, on several machines too; give each the same recordings and options:
simulate_spike_dataset.py --video *.mp4 --out datasets/v --shard 0/4     and so on, to 3/4
"""

import math
import sys
import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.geometry import size_text
from data.layout import SPLITS, DatasetWriter, Split, how_to_restore
from data.prepare.recordings import WHOLE, Source, Span, folder_source, parse_range, video_source
from data.prepare.video_light import Windows, instants_of_window, make_frames
from data.spike.manifest import Manifest, simulated_manifest
from data.spike.sensor_noise import SensorNoise
from utils.utils_cli import ALL, Parser, Shard, program
from utils.utils_error import UserError, counted
from utils.utils_progress import progress


@dataclass(frozen=True)
class Settings(Windows):
    """The settings of the command line, checked at construction.

    Raises:
        UserError: a value is out of range; names the option.
    """

    noise: Literal["none", "sensor"] = "none"
    seed: int = 0
    span: Span = WHOLE
    fps: float | None = None

    def __post_init__(self) -> None:
        first, last = self.span
        most = max(self.steps_per_frame * (self.blur_frames - 1) + 1, self.steps_per_frame)
        odd = self.blur_frames > 0 and self.blur_frames % 2 == 1
        checks = [
            ("--blur-frames", self.blur_frames, odd, "an odd number, so that one frame is the middle"),
            ("--steps-per-frame", self.steps_per_frame, self.steps_per_frame > 0, "1 or more"),
            ("--spike-scale", self.spike_scale, self.spike_scale > 0, "1 or more"),
            (
                "--theta",
                self.theta,
                1 <= self.theta <= most,
                f"1 to {most} steps, an exposure: white fires every theta",
            ),
            ("--seed", self.seed, self.seed >= 0, "0 or more"),
            ("--range", f"{first}:{last}", last is None or first < last, "FIRST below LAST"),
            ("--fps", self.fps, self.fps is None or 0 < self.fps < math.inf, "more than 0"),
            ("--instants", self.instants, 0 <= self.instants < self.blur_frames, "0 to N-1, the other source frames"),
        ]
        for option, value, good, expected in checks:
            if not good:
                raise UserError(f"{option}: {value}, expected {expected}; change or leave out {option}")


def cropped_size(frame: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return the largest (H, W) inside a frame that is `scale` times a spike size, a multiple of 8 pixels.

    Raises:
        UserError: the frame is too small.
    """
    rows, columns = frame[0] // scale, frame[1] // scale
    sides = product(range(max(1, rows - 7), rows + 1), range(max(1, columns - 7), columns + 1))
    fits = [(h * w, h, w) for h, w in sides if h * w % 8 == 0]
    if not fits:
        raise UserError(
            f"frames of {frame}: too small for --spike-scale {scale}, expected 8 spike pixels; use a smaller scale"
        )
    _, h, w = max(fits)
    return h * scale, w * scale


def noise_of(clip: str, settings: Settings) -> np.random.Generator:
    """Return the source of a clip's first charge and noise."""
    key = settings.seed if settings.noise == "none" else [settings.seed, 2, zlib.crc32(clip.encode())]
    return np.random.default_rng(key)


def make_manifest(source: Source, settings: Settings) -> Manifest:
    """Return the manifest of the simulated ideal camera, without clips."""
    size, clock_hz = cropped_size(source.frame_size, settings.spike_scale), source.fps * settings.steps_per_frame
    return simulated_manifest(size, settings.spike_scale, settings.theta, clock_hz, settings.transfer, settings.noise)


def find_sources(paths: list[Path], settings: Settings, video: bool) -> list[Source]:
    """Open the recordings.

    Raises:
        UserError: one is missing or too short, its size or frame rate differs from the first one's, or two give clips
            of one name.
    """
    sources = [(video_source if video else folder_source)(path, settings.span, settings.fps) for path in paths]
    manifest, clips = make_manifest(sources[0], settings), [source.clip for source in sources]
    for source in sources:
        if len(source.names) < settings.blur_frames:
            raise UserError(
                f"{source.path}: {counted(len(source.names), 'frame')}, expected {settings.blur_frames} or more, the "
                "--blur-frames of one blurred frame; give a longer recording, or correct --range or --blur-frames"
            )
        if make_manifest(source, settings) != manifest:
            raise UserError(
                f"{source.path}: frames of {size_text(source.frame_size)} at {source.fps:g} per second, expected "
                f"those of {paths[0]}; one data set has one camera, so convert it or use another --out"
            )
        if clips.count(source.clip) > 1:
            raise UserError(
                f"{source.path}: {clips.count(source.clip)} recordings give a clip {source.clip}, expected one; "
                "rename it"
            )
    return sources


def simulate(
    paths: list[Path], out: Path, split: Split, settings: Settings, video: bool = True, shard: Shard = ALL
) -> None:
    """Simulate one clip per recording and add them to the data set in `out`.

    Args:
        paths: video files, or folders of frames.
        out: folder of the data set; clips of the other split and of other names are kept.
        split: split of the clips; a clip of the same name in the same split is replaced.
        settings: settings of the command line.
        video: whether `paths` are video files.
        shard: simulate only its share of the recordings; all of them are checked.

    Raises:
        UserError: a recording is missing or too short, or its size or frame rate differs from the set's.
    """
    sources = find_sources(paths, settings, video)
    manifest = make_manifest(sources[0], settings)
    size = manifest.rgb_h, manifest.rgb_w
    if shard != ALL:
        sources = shard.of(sources)
        print(f"--shard {shard}: {len(sources)} of {len(paths)} recordings")
    if not sources:
        return
    for source in sources:
        if source.frame_size != size:
            whole = size_text(source.frame_size)
            print(f"{source.path}: frames of {whole} are cropped around their centre to {size_text(size)}")
    left_out = instants_of_window(settings)[1]
    if left_out:
        print(f"--instants: left out source frames {left_out}: two decimals in a name do not tell their steps apart")
    camera = None  # the ideal sensor
    if settings.noise == "sensor":
        camera = SensorNoise().camera((manifest.spike_h, manifest.spike_w), settings.theta, settings.seed)
        manifest = manifest.model_copy(update={"rate_at_white": camera.rate_at_white()})
    with DatasetWriter(out, manifest) as writer:
        writer.claim(split, [source.clip for source in sources])
        for source in sources:
            frames = progress(source.frames(), total=len(source.names), what=source.clip)
            made = make_frames(iter(frames), size, settings, camera, noise_of(source.clip, settings))
            count = writer.add_clip(split, source.clip, made, settings.timing())
            left = len(source.names) - count * settings.blur_frames
            rest = f"; not used, less than a window of {settings.blur_frames}: the last {left}" if left else ""
            print(f"{source.clip}: {counted(count, f'{split} frame')} from {len(source.names)} source frames{rest}")
        writer.finish()
    if split == "test":
        print(how_to_restore(out, has_sharp=True))


def main() -> None:
    """Read the command line and simulate."""
    parser = Parser(description=__doc__)
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--video", type=Path, nargs="+", metavar="FILE", help="sharp videos, one clip each")
    inputs.add_argument("--frames", type=Path, nargs="+", metavar="DIR", help="folders of sharp frames, one clip each")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="ROOT", help="folder of the data set; clips are added"
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="split to add the clips to")
    parser.add_argument("--range", type=parse_range, default=WHOLE, metavar="FIRST:LAST",
                        help="use only source frames FIRST .. LAST-1 of each recording (default: all)")  # fmt: skip
    parser.add_argument("--blur-frames", type=int, default=7, metavar="N", help="source frames per blurred frame, odd")
    parser.add_argument("--steps-per-frame", type=int, default=8, metavar="S", help="spike steps per source frame")
    parser.add_argument("--spike-scale", type=int, default=2, help="RGB pixels per spike pixel along each axis")
    parser.add_argument("--theta", type=float, default=2.0, help="firing threshold: white fires every theta steps")
    parser.add_argument("--noise", choices=["none", "sensor"], default="none", help="noise of the spike sensor")
    parser.add_argument("--transfer", choices=["srgb", "linear"], default="srgb", help="what the sensor integrates")
    parser.add_argument(
        "--interpolation", choices=["flow", "blend"], default="flow", help="how to make light between source frames"
    )
    parser.add_argument("--fps", type=float, help="source frames per second (default: the video's; 240 for --frames)")
    parser.add_argument("--subframes", action="store_true", help="store the light of each spike step")
    parser.add_argument("--instants", type=int, default=0, metavar="K", help="store K sharp frames at other instants")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_shard("recordings")
    parser.add_common()
    args = parser.parse_args()
    with program(args.debug, args.quiet):
        settings = Settings(
            args.steps_per_frame, args.spike_scale, args.transfer, args.interpolation, args.blur_frames, args.theta,
            args.subframes, args.instants, args.noise, args.seed, args.range, args.fps,
        )  # fmt: skip
        simulate(args.video or args.frames, args.out, args.split, settings, bool(args.video), args.shard)


if __name__ == "__main__":
    main()
