"""Read the spike steps around the frames of a data set, and check all of its files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from data.clip_index import Clips, existing_folder
from data.frame_order import in_time
from data.geometry import Box
from data.instants import step_of
from data.recent import Recent
from data.spike.alignment import IDENTITY, Warp, warp_of
from data.spike.manifest import GOPRO_SHORT_BY, ClipTiming, Manifest, gopro_timing
from data.spike.planes import REPRESENTATIONS, Span, instant_problem, steps_per_plane, tfp_of
from data.spike.sensor import Sensor, resolve_sensor
from data.spike.store import open_store
from data.spike.stream import Timeline, mirrored
from data.spike.texture import likelier_size
from options.schema import DatasetOpt, SpikeOpt
from utils.spike_loader import Size, decode, implied_sizes, steps_in
from utils.utils_error import UserError, say_once

NAMED = 5  # most frames named per problem


def clip_timing(manifest: Manifest | None, clip: str) -> ClipTiming:
    """Return the timing of a clip, without a manifest by GoPro's rules; UserError if there is none."""
    return gopro_timing(clip) if manifest is None else manifest.timing(clip)


def window_of(opt: SpikeOpt, exposure: Span) -> int:
    """Return the number of steps around the target step that the representation uses."""
    if REPRESENTATIONS[opt.representation].gives != "counts":
        return opt.window
    each = steps_per_plane(opt.planes, exposure) if opt.steps_per_plane == "auto" else opt.steps_per_plane
    return opt.planes * each


def unnamed(where: str, sizes: Mapping[str, int], size: Size, steps: int) -> str:
    """Report that none of a clip's `.dat` files, {name: bytes}, is named after a frame, such as `where`."""
    names = ", ".join(f"{name}.dat" for name in list(sizes)[:3]) + ", ..." * (len(sizes) > 3)
    line = f"{where}: no such spike file, its folder holds {len(sizes)} .dat ({names}); "
    if len(sizes) > 1:
        return f"{line}files must be named after the frames; rename them"
    found = next(iter(sizes.values())) * 8 / (size[0] * size[1])
    return (
        f"{line}each frame needs its own, of {steps} steps; this one has {found:g} of {size[0]}x{size[1]}: cut it "
        "with scripts/data_preparation/prepare_recording.py"
    )


class SpikeReader:
    """Spikes below `opt.dataroot_spike`, a folder of `.dat` files or an LMDB of them, of the clips that will be read.

    `frame_size` returns (H, W) of a clip's frames, to explain a `.dat` of the wrong size. `keep_files` keeps the files
    of one frame's steps open, so that reading in order opens each file once.

    Raises:
        UserError: a clip is missing, or options, manifest and files disagree.
    """

    def __init__(
        self,
        opt: DatasetOpt,
        clips: Clips,
        frame_size: Callable[[str], Size] | None = None,
        *,
        keep_files: bool = False,
    ) -> None:
        self.root = existing_folder(opt.dataroot_spike, f"{opt.name}: dataroot_spike")
        self.opt, self._frame_size = opt.spike, frame_size
        self.manifest = Manifest.load(self.root)
        self.store = open_store(self.root, clips)
        self._keep_files = keep_files
        self._packed: Recent[tuple[str, str], np.ndarray] = Recent(int(keep_files))
        self._sizes = {clip: self.store.sizes(clip) for clip in clips}
        clip, files = next(iter(self._sizes.items()))
        frame, size = next(iter(files.items()))
        self.sensor = resolve_sensor(opt, self.manifest, self.store.where(clip, frame), size)
        if self.manifest is None:
            say_once(
                "{}: no manifest.json, using GoPro's rules: {}x{} spikes, flipud {}, rate_at_white {:g}, bit_order {}, "
                "timing from the number in each clip's name, one stream per clip".format(self.root, *self.sensor)
            )
        self.timings = {clip: clip_timing(self.manifest, clip).in_spikes() for clip in clips}
        own = {clip: timing.spike_size or self.sensor.size for clip, timing in self.timings.items()}
        self.sensors = {clip: self.sensor._replace(height=h, width=w) for clip, (h, w) in own.items()}
        self._last = {
            clip: in_time(files, f"clip {clip}: spikes in {self.root}")[-1] for clip, files in self._sizes.items()
        }
        self._is_continuous = self.manifest is None or self.manifest.continuous
        self._timelines = {clip: Timeline(self._lengths(clip), self._is_continuous) for clip in clips}

    @property
    def is_linear(self) -> bool:
        """Whether the sensor integrated linear light; RGB frames are sRGB."""
        return self.manifest is not None and self.manifest.transfer == "linear"

    def sensor_of(self, clip: str) -> Sensor:
        """Return geometry and gain of a clip's spikes; clips may differ in size."""
        return self.sensors[clip]

    def target_step(self, clip: str, center: int | None = None) -> int:
        """Return the step that a frame's planes show: `center`, else spike.center, else the clip's sharp step."""
        if center is not None:
            return center
        return self.timings[clip].sharp_step if self.opt.center is None else self.opt.center

    def window(self, clip: str) -> int:
        return window_of(self.opt, self.timings[clip].exposure)

    def step_at(self, clip: str, time: float) -> int:
        """Return the step at a fraction of the exposure: 0 is its first step, 1 its last."""
        return step_of(*self.timings[clip].exposure, time)

    def warp(self, clip: str) -> Warp:
        """Return what moves planes of a clip from the sensor to the frames."""
        alignment = self.timings[clip].alignment
        return warp_of(alignment.matrix if alignment else IDENTITY, self.sensor_of(clip).size)

    def whole(self, clip: str) -> Box:
        return Box(0, 0, *self.sensor_of(clip).size)

    def exposed(self, clip: str, frame: str) -> np.ndarray:
        """Return the mean rate over the exposure at the frame's spike grid, (h, w) float32, spikes per step."""
        whole, warp = self.whole(clip), self.warp(clip)
        part = warp.region(whole)
        mean = tfp_of(self.read(clip, frame, self.timings[clip].exposure, rows=part.row_span, cols=part.col_span))
        return warp(mean[None], whole)[0]

    def exposure_rate(self, clip: str, frame: str) -> float:
        """Return the mean rate of all pixels over the exposure, in spikes per step."""
        height, width = self.sensor_of(clip).size
        first, last = self.timings[clip].exposure
        if self.timings[clip].alignment is not None:
            return float(self.exposed(clip, frame).mean(dtype=np.float64))
        packed = self._bytes(clip, frame)[first * height * width // 8 : last * height * width // 8]
        return int.from_bytes(packed.tobytes(), "little").bit_count() / ((last - first) * height * width)

    def has(self, clip: str, frame: str) -> bool:
        """Return whether the `.dat` file existed at construction."""
        return frame in self._sizes.get(clip, ())

    def read(
        self, clip: str, frame: str, steps: Span, *, rows: Span | None = None, cols: Span | None = None
    ) -> np.ndarray:
        """Read steps, rows and columns (half-open, row 0 at the top) around a frame, (T, h, w) uint8, 0 or 1.

        Steps count from the start of the frame's own `.dat` file. In a continuous stream they may lie in neighbouring
        files; beyond the ends of the stream, `spike.edge` applies.

        Raises:
            UserError: a file is missing, empty or truncated, or the stream lacks a step; names clip and frame.
        """
        return self.assembled(clip, frame, steps, lambda at, span: self._read_file(clip, at, span, rows, cols))

    def assembled(self, clip: str, frame: str, steps: Span, read: Callable[[str, Span], np.ndarray]) -> np.ndarray:
        """Do what `read` does, with a function that returns (n, h, w) for a frame and [first, last) of its file."""
        if problem := self.problem(clip, frame, steps):
            raise UserError(f"clip {clip} frame {frame}: {problem}")
        cut = self._timelines[clip].cut(frame, *steps)
        if self._keep_files:
            self._packed.hold(len(cut.pieces))
        parts = [read(at, (first, last)) for at, first, last in cut.pieces]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined if cut.is_whole else mirrored(joined, cut.before, cut.after)

    def problems(self, clips: Clips, times: Sequence[float] = ()) -> list[str]:
        """Check existence, size and reach of the frames' files, by their sizes alone; one line per clip and problem.

        `times` are fractions of the exposure that will be read too.
        """
        unable = instant_problem(self.opt.representation) if times else None
        found = [line for clip, frames in clips.items() for line in self._problems(clip, frames, times)]
        return [unable, *found] if unable else found

    def _problems(self, clip: str, frames: Sequence[str], times: Sequence[float]) -> list[str]:
        sizes = self._sizes[clip]
        if not any(frame in sizes for frame in frames):
            where, steps = self.store.where(clip, frames[0]), self._allowed(clip, frames[0])[0]
            return [f"clip {clip} frame {frames[0]}: {unnamed(where, sizes, self.sensor_of(clip).size, steps)}"]
        represent, exposure = REPRESENTATIONS[self.opt.representation], self.timings[clip].exposure
        shown = [self.target_step(clip), *(self.step_at(clip, time) for time in times)]
        reaches = [represent.reach(self.window(clip), step, exposure) for step in shown]
        reach = min(first for first, _ in reaches), max(last for _, last in reaches)
        alike: dict[str, list[str]] = {}  # problem without the file's name -> frames that have it
        for frame in frames:
            try:
                self._steps(clip, frame, sizes[frame] if frame in sizes else self.store.packed(clip, frame).size)
                problem = self.problem(clip, frame, reach)
            except UserError as error:
                problem = str(error)
            if problem:
                alike.setdefault(problem.replace(self.store.where(clip, frame), "{where}"), []).append(frame)
        found = []
        for problem, (first, *others) in alike.items():
            names = ", ".join(others[:NAMED]) + ", ..." * (len(others) > NAMED)
            more = f" (and {len(others)} more of its {len(frames)} frames: {names})" if others else ""
            where = self.store.where(clip, first)
            found.append(f"clip {clip} frame {first}: {problem.replace('{where}', where)}{more}")
        return found

    def problem(self, clip: str, frame: str, steps: Span) -> str | None:
        """Return why steps around a frame, counted as in `read`, cannot be read; None if they can.

        What the alignment moves beyond a stream's ends is mirrored with any `spike.edge`.
        """
        cut, alignment = self._timelines[clip].cut(frame, *steps), self.timings[clip].alignment
        existing = sum(piece.last - piece.first for piece in cut.pieces)
        moved = abs(alignment.steps) + abs(alignment.longer) if alignment else 0
        if max(cut.before, cut.after) <= (existing if self.opt.edge == "mirror" else min(moved, existing)):
            return None
        first, last = steps[0] + cut.before, steps[1] - 1 - cut.after
        alone = "" if self._is_continuous else " (manifest.json: not continuous)"
        key = "spike.planes" if self.opt.representation == "moment" else "spike.window"
        return (
            f"steps {steps[0]}..{steps[1] - 1} are needed, the stream has {first}..{last}{alone}; "
            f"lower {key}, change spike.center or set spike.edge to mirror"
        )

    def room(self, clip: str, frame: str, steps: Span, most: int) -> Span:
        """Return by how many steps, at most `most`, a span around a frame can be moved within the stream."""
        cut = self._timelines[clip].cut(frame, steps[0] - most, steps[1] + most)
        return cut.before - most, most - cut.after

    def num_steps(self, clip: str, frame: str) -> int:
        """Return the number of steps of a frame's own `.dat` file, by its size at construction."""
        return self._timelines[clip].lengths[frame]

    def shape(self, clip: str, frame: str) -> tuple[int, int, int]:
        return self.num_steps(clip, frame), *self.sensor_of(clip).size

    def size_warning(self, clip: str, frame: str) -> str | None:
        """Return a warning if the bits of a file look like spikes of another size (H, W), else None."""
        size = self.sensor_of(clip).size
        likelier, where = likelier_size(self._bytes(clip, frame), *size), self.store.where(clip, frame)
        text = "{}: looks like {}x{} spikes, not like {}x{}; check spike_h and spike_w"
        return text.format(where, *likelier, *size) if likelier else None

    def _read_file(self, clip: str, frame: str, steps: Span, rows: Span | None, cols: Span | None) -> np.ndarray:
        height, width, flipud, _, order = self.sensor_of(clip)
        try:
            packed = self._bytes(clip, frame)
            self._steps(clip, frame, packed.size)
            return decode(packed, height, width, steps=steps, rows=rows, cols=cols, flipud=flipud, bit_order=order)
        except UserError as error:
            raise UserError(f"clip {clip} frame {frame}: {error}") from None

    def _bytes(self, clip: str, frame: str) -> np.ndarray:
        return self._packed.get((clip, frame), partial(self.store.packed, clip, frame))

    def _lengths(self, clip: str) -> dict[str, int]:
        """Return the steps of every file of a clip; a file of the wrong size counts with its expected steps."""
        lengths = {}
        height, width = self.sensor_of(clip).size
        for frame, size in self._sizes[clip].items():
            allowed = self._allowed(clip, frame)
            steps = size * 8 // (height * width)
            lengths[frame] = steps if steps in allowed else allowed[0]
        return lengths

    def _allowed(self, clip: str, frame: str) -> list[int]:
        """Return the numbers of steps that a frame's `.dat` file may have."""
        steps = self.timings[clip].num_steps(frame)
        if self.manifest is None and frame == self._last[clip]:
            return [steps, steps - GOPRO_SHORT_BY]
        return [steps]

    def _steps(self, clip: str, frame: str, size: int) -> int:
        """Compare a file's bytes with the steps of the clip's timing; return the number of steps."""
        height, width = self.sensor_of(clip).size
        allowed = self._allowed(clip, frame)
        for steps in allowed:
            if size * 8 == steps * height * width:
                return steps
        where, implied = self.store.where(clip, frame), self._implied(clip, size, allowed)
        try:
            found = steps_in(size, height, width, implied)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        raise UserError(
            f"{where} has {found} steps of {height}x{width}, expected {' or '.join(map(str, allowed))}; {implied}"
            "correct spike_h and spike_w, or prepare the spikes of this clip again"
        )

    def _implied(self, clip: str, size: int, allowed: list[int]) -> str:
        """Return the sizes that a clip's frames imply for a file of the wrong size, for a message; may be empty."""
        if self._frame_size is None:
            return ""
        try:
            frame = self._frame_size(clip)
        except UserError:  # reported elsewhere
            return ""
        own = self.sensor_of(clip).size
        found = [each for each in implied_sizes(size, frame, allowed) if each != own]
        fitting = " or ".join(f"{h}x{w} ({size * 8 // (h * w)} steps)" for h, w in found)
        return f"the frames' {frame[0]}x{frame[1]} pixels imply {fitting}; " if fitting else ""
