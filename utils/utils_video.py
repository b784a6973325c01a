"""Write video files, and convert pixel formats for reading and writing them."""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import cv2
import numpy as np

from utils.utils_error import UserError
from utils.utils_file import whole_file

if TYPE_CHECKING:
    import av

LOG = logging.getLogger("spikevrt")

BACKGROUND = (24, 24, 27)  # fills the area around smaller pictures

# Without the two flags, 8-bit input loses one level on average, 10-bit two, and chroma comes in blocks of 2x2 pixels.
_FLAGS = "flags=bilinear+accurate_rnd+full_chroma_int"
_BT709, _LIMITED = 1, 1  # as in ISO/IEC 23091-2 and in FFmpeg
_SQUARE = Fraction(1)
_FINEST = Fraction(1, 1_000_000)  # finest time unit written, in seconds


@dataclass(frozen=True)
class Playback:
    """Timing and pixel shape of a recording."""

    rate: Fraction | None = None  # mean frames per second; None if unknown
    times: tuple[Fraction, ...] | None = None  # display time of each frame in seconds, ascending; None if unknown
    pixel_aspect: Fraction = _SQUARE  # width of a pixel over its height

    def part(self, frames: Sequence[int]) -> "Playback":
        """Return the playback of some of the frames, in their order, shifted to start at the original start time."""
        return self._with([self.times[frame] for frame in frames]) if self.times and frames else self

    def between(self, first: int, count: int) -> "Playback":
        """Return the playback of `count` frames, each halfway between two, from `first` on; shifted as in `part`."""
        if not self.times:
            return self
        ends = self.times[first : first + count + 1]
        return self._with([(start + end) / 2 for start, end in itertools.pairwise(ends)])

    def _with(self, times: list[Fraction]) -> "Playback":
        begin = self.times[0] if self.times else 0
        return replace(self, times=tuple(time - times[0] + begin for time in times))


class _Codec(NamedTuple):
    """How a video is written."""

    encoder: str
    pix_fmt: str
    scale: str  # arguments of the scale filter
    options: dict[str, str]  # of the encoder
    file_options: dict[str, str]
    even: bool  # sides must be even


_TO_BT709 = f"{_FLAGS}:out_color_matrix=bt709:out_range=tv"
CODECS = {
    "h264": _Codec("libx264", "yuv420p", _TO_BT709, {"crf": "18"}, {"movflags": "faststart"}, even=True),
    # Each picture is a key frame with checksums.
    "lossless": _Codec("ffv1", "bgr0", _FLAGS, {"level": "3", "g": "1", "slicecrc": "1"}, {}, even=False),
}


class Converter:
    """Converts pictures to another pixel format with FFmpeg's scale filter, which handles colour matrices and ranges.

    `frame` has the size, pixel format, colour space and range of all pictures. An unspecified matrix means BT.601;
    gray, RGB and an unspecified range are treated as FFmpeg does. `scale` is the filter's arguments.
    """

    def __init__(self, frame: "av.VideoFrame", pix_fmt: str = "rgb24", scale: str = _FLAGS) -> None:
        import av

        self.kind = self.kind_of(frame)
        width, height, name, colorspace, color_range = self.kind
        source = f"video_size={width}x{height}:pix_fmt={name}:time_base=1/1"
        if av.library_versions["libavfilter"] >= (10,):  # older versions take them from the picture
            source += f":colorspace={colorspace}:range={color_range}"
        self._graph = av.filter.Graph()
        if hasattr(self._graph, "threads"):  # not in older PyAV
            self._graph.threads = 1
        steps = [
            self._graph.add("buffer", source),
            self._graph.add("setparams", "color_primaries=unknown:color_trc=unknown"),  # neither is converted
            self._graph.add("scale", scale),
            self._graph.add("format", f"pix_fmts={pix_fmt}"),
            self._graph.add("buffersink"),
        ]
        for step, following in itertools.pairwise(steps):
            step.link_to(following)
        self._graph.configure()
        self._source, self._sink = steps[0], steps[-1]

    @staticmethod
    def kind_of(frame: "av.VideoFrame") -> tuple[int, int, str, int, int]:
        """The properties that all pictures of one converter share."""
        return frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)

    def __call__(self, frame: "av.VideoFrame") -> "av.VideoFrame":
        """Return the picture in the output format."""
        self._source.push(frame)
        return cast("av.VideoFrame", self._sink.pull())


def write_video(
    path: Path, images: Iterable[np.ndarray], rate: Fraction | int = 25, codec: str = "h264", **shown: Any
) -> None:
    """`video_writer` for images that come one at a time."""
    with video_writer(path, rate, codec, **shown) as add:
        for image in images:
            add(image)


@contextmanager
def video_writer(
    path: Path, rate: Fraction | int = 25, codec: str = "h264", *,
    times: Sequence[Fraction] | None = None, pixel_aspect: Fraction = _SQUARE,
) -> Iterator[Callable[[np.ndarray], None]]:  # fmt: skip
    """Yield a function that adds an image, (H, W, 3) uint8 RGB, to a video, which is written atomically.

    The first image sets the size, later ones of other sizes are fitted into it. Matroska rounds times to milliseconds,
    and PyAV cannot write the pixel shape into it; the latter logs a warning. Raises UserError if there are no images,
    images of a lossless video have different sizes, or PyAV lacks the encoder.

    Args:
        path: ends in .mp4 for "h264", in .mkv for "lossless".
        rate: images per second.
        codec: "h264", for browsers and players: yuv420p, BT.709, limited range; odd sides are padded by repeating the
            last row or column. "lossless": FFV1, bit-exact; all images need the same size.
        times: display time of each image in seconds, ascending; None: equally spaced by the rate, from 0.
        pixel_aspect: width of a pixel over its height.
    """
    import av

    how = CODECS[codec]
    _check_encoder(how.encoder, codec)
    rate = Fraction(rate).limit_denominator(100_000)
    unit = _unit(times, 1 / rate) if times else 1 / rate
    with whole_file(path) as temporary, av.open(str(temporary), "w", options=how.file_options) as container:
        stream: Any = container.add_stream(how.encoder, rate, options=dict(how.options))
        stream.pix_fmt = how.pix_fmt
        stream.codec_context.time_base = unit
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        size, count = (0, 0), 0
        convert: Converter | None = None

        def add(image: np.ndarray) -> None:
            nonlocal size, convert, count
            size = size if count else (image.shape[0], image.shape[1])
            picture = _of_size(path, image, size, how, is_first=not count)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            if convert is None:
                stream.height, stream.width = picture.shape[:2]
                if path.suffix == ".mkv" and pixel_aspect != 1:
                    _warn_of_shape(path, picture.shape[:2], pixel_aspect)
                convert, context = Converter(frame, how.pix_fmt, how.scale), stream.codec_context
                if how.pix_fmt.startswith("yuv"):  # players need not guess the colour space from the size
                    context.colorspace = context.color_primaries = context.color_trc = _BT709
                    context.color_range = _LIMITED
            converted = convert(frame)
            converted.pts, converted.time_base = round(times[count] / unit) if times else count, unit
            container.mux(stream.encode(converted))
            count += 1

        yield add
        if not count:
            raise UserError(f"{path}: no images to write, expected one or more; restore frames first")
        container.mux(stream.encode())


def _unit(times: Sequence[Fraction], step: Fraction) -> Fraction:
    """Return the largest unit that divides all times, if it is between _FINEST and `step`; else _FINEST."""
    whole = math.lcm(*(time.denominator for time in times))
    unit = Fraction(math.gcd(*(int(time * whole) for time in times)), whole)
    return unit if _FINEST <= unit <= step else _FINEST


def _warn_of_shape(path: Path, size: tuple[int, int], aspect: Fraction) -> None:
    LOG.warning(
        "%s: PyAV cannot write its pixel shape %s into Matroska; so that players show it right, "
        "run mkvpropedit %s --edit track:v1 --set display-width=%d --set display-height=%d",
        *(path, ratio(aspect), path.name, round(size[1] * aspect), size[0]),
    )


def ratio(value: Fraction) -> str:
    """Format a ratio as 64:45."""
    return f"{value.numerator}:{value.denominator}"


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Fit an image (h, w, 3) uint8 into (H, W): shrink it if too large, keep its aspect, pad with the background."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1], 1)
    if scale < 1:
        shrunk = max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    fitted = np.full((*size, 3), BACKGROUND, dtype=np.uint8)
    fitted[: image.shape[0], : image.shape[1]] = image
    return fitted


def _of_size(path: Path, image: np.ndarray, size: tuple[int, int], how: _Codec, is_first: bool) -> np.ndarray:
    """The image fitted into (H, W), with sides padded to even ones if the codec needs that."""
    odd = (size[0] % 2, size[1] % 2) if how.even else (0, 0)
    if any(odd) and is_first:
        LOG.info("%s: %dx%d has an odd side; its last row or column is repeated", path, *size)
    if image.shape[:2] != size:
        if not how.even:
            found, wanted = ("x".join(map(str, sides)) for sides in (image.shape[:2], size))
            raise UserError(
                f"{path}: an image has {found} pixels, expected {wanted} like the first; make all the same size"
            )
        image = fit(image, size)
    return np.pad(image, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") if any(odd) else image


def _check_encoder(encoder: str, codec: str) -> None:
    import av

    try:
        av.codec.Codec(encoder, "w")
    except ValueError:  # PyAV's UnknownCodecError, which moves between its modules
        other = next(name for name in CODECS if name != codec)
        raise UserError(
            f'{codec}: this PyAV ({av.__version__}) has no encoder {encoder}; install it with pip install "av>=12", '
            f"whose wheels have it, or write {other} or png"
        ) from None
