"""Index a video file without decoding it: number of frames, their times, and where decoding can begin."""

import logging
import os
import re
import zlib
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from data.video.doubts import Doubt, check_matrix, colour_doubts, interlaced
from utils.utils_error import UserError
from utils.utils_video import Playback

LOG = logging.getLogger("spikevrt")

_TAG_TIME = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
_ONE_TO_ONE = ("h264", "hevc")  # one packet per picture in any container
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits reversed
_GAP = 4  # times the usual step
_ROUNDING = Fraction(1, 1000)  # seconds; Matroska's times are whole milliseconds
_COPY = "copy it again, or encode what is left anew"


class Place(NamedTuple):
    """A key frame: its number and decode time."""

    number: int
    decode_time: int


@dataclass(frozen=True)
class VideoIndex:
    """Frames of a file, numbered in display order.

    Attributes:
        count: number of frames.
        size: (H, W) as shown.
        rate: mean frames per second, None if unknown.
        turns: quarter turns, counterclockwise, from the coded to the shown picture.
        times: times of all frames, in `unit`, ascending; empty if missing or not unique, then frames can only be
            counted from the beginning.
        unit: unit of the times, in seconds.
        places: key frames, ascending; empty without times.
        pixel_aspect: width of a pixel over its height, as shown.
        doubts: doubts about the frames.
    """

    count: int
    size: tuple[int, int]
    rate: Fraction | None
    turns: int
    times: array
    unit: Fraction
    places: tuple[Place, ...]
    pixel_aspect: Fraction
    doubts: tuple[Doubt, ...]

    def playback(self) -> Playback:
        """Return when and how the frames are shown; times that are equally spaced up to rounding are made exact."""
        times = [time * self.unit for time in self.times]
        if times and self.rate:
            even = [times[0] + number / self.rate for number in range(self.count)]
            slack = min(self.unit, _ROUNDING)
            if all(abs(time - other) <= slack for time, other in zip(times, even, strict=True)):
                times = even
        return Playback(self.rate, tuple(times) or None, self.pixel_aspect)

    def number(self, time: int | None) -> int | None:
        """Return the number of the frame with this time, None if there is none or times are unusable."""
        if time is None or not self.times:
            return None
        found = bisect_left(self.times, time)
        return found if found < self.count and self.times[found] == time else None

    def place_before(self, number: int) -> Place | None:
        """Return the last key frame at or before a frame, None if there is none."""
        found = bisect_right(self.places, number, key=lambda place: place.number)
        return self.places[found - 1] if found else None

    def next_key(self, number: int) -> int:
        """Return the number of the first key frame at or after a frame, `count` if there is none."""
        found = bisect_left(self.places, number, key=lambda place: place.number)
        return self.places[found].number if found < len(self.places) else self.count


def index_of(clip: str, path: Path) -> VideoIndex:
    """Index the video file of a clip; cached until the file changes.

    Raises:
        UserError: it is missing, not a video, truncated, or its first frame cannot be decoded.
    """
    try:
        found = os.stat(path)
        return _index(path.resolve(), path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise UserError(f"clip {clip}: {path} cannot be read ({error.strerror}); correct the path") from None
    except UserError as error:
        raise UserError(f"clip {clip}{' ' if str(error).startswith('frame ') else ': '}{error}") from None


def open_video(path: Path) -> tuple[Any, Any]:
    """Open a file; return PyAV's container and its first video stream, decoded by one thread.

    One thread is fast enough beside a network, reports errors with the packet that causes them, and can be forked.

    Raises:
        UserError: the file is not a video or has no pictures.
    """
    import av

    try:
        container = av.open(str(path.resolve()), options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise UserError(
            f"{path} is not a readable video ({reason_of(error)}; {path.stat().st_size} bytes), expected an "
            "mp4, mkv, avi, mov or webm file; copy it again"
        ) from None
    if not container.streams.video or container.streams.video[0].codec_context is None:
        container.close()
        raise UserError(f"{path} has no pictures that this PyAV can decode, expected a video; encode it anew")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    # Report damage that the decoder would otherwise conceal.
    stream.codec_context.options = {"err_detect": "crccheck+explode"}
    return container, stream


def reason_of(error: Exception) -> str:
    """Return FFmpeg's reason in a few words."""
    return str(getattr(error, "strerror", None) or error)


@lru_cache(maxsize=4096)
def _index(resolved: Path, path: Path, size: int, changed: int) -> VideoIndex:
    import av

    container, stream = open_video(path)
    with container:
        try:
            count, times, places = _scan(path, container, stream)
        except av.FFmpegError as error:
            raise UserError(f"{path} cannot be read to its end ({reason_of(error)}); {_COPY}") from None
        rate, unit = stream.average_rate, Fraction(stream.time_base)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
    (height, width), turns, doubts = _first_picture(path)
    if turns % 2:
        height, width, aspect = width, height, 1 / aspect
    count = _count(path) if count is None else count
    rate = Fraction(rate) if rate else None
    return VideoIndex(count, (height, width), rate, turns, times, unit, places, aspect, doubts)


def _scan(path: Path, container: Any, stream: Any) -> tuple[int | None, array, tuple[Place, ...]]:
    """Read all packets of a stream; return the number of frames, None if only decoding tells, times and key frames."""
    packets, end = 0, 0
    pictures: list[int | None] = []
    keys: list[tuple[int, int]] = []
    cut: list[int] = []  # packets truncated by the end of the file
    wrong: list[int] = []  # FFV1 pictures with a wrong checksum
    for packet in container.demux(stream):
        if packet.dts is None and not packet.size:
            continue  # the end
        packets += 1
        end = max(end, max(packet.dts or 0, packet.pts or 0) + (packet.duration or 1))
        if not packet.size or packet.is_discard or _is_hidden(stream, packet):
            continue
        if packet.is_corrupt:
            cut.append(len(pictures))
        elif stream.codec_context.name == "ffv1" and not _has_right_sums(bytes(packet)):
            wrong.append(len(pictures))
        pictures.append(packet.pts)
        if packet.is_keyframe and packet.pts is not None:
            keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
    if not pictures:
        raise UserError(f"{path} has no frames, expected one or more; {_COPY}")
    damaged = cut + (wrong if 2 * len(wrong) <= len(pictures) else [])  # if most checksums are wrong, the file has none
    if damaged:
        raise UserError(
            f"frame {min(damaged):06d}: {path} is truncated or damaged there, expected an intact frame; {_COPY}"
        )
    _check_end(path, container, stream, packets, end)
    # An AVI has no times; the demuxer's follow packet order. MPEG-4 in AVI may put two pictures into one packet and
    # leave the next one empty.
    guessed = container.format.name == "avi" and stream.codec_context.codec.reorder
    if guessed or None in pictures or len(set(pictures)) < len(pictures):
        counted = stream.codec_context.name in _ONE_TO_ONE
        return len(pictures) if counted else None, array("q"), ()
    times = array("q", sorted(time for time in pictures if time is not None))
    _warn_of_gaps(path, times, stream.time_base)
    places = tuple(Place(bisect_left(times, time), decoded) for time, decoded in sorted(keys))
    return len(times), times, places


def _check_end(path: Path, container: Any, stream: Any, packets: int, end: int) -> None:
    """Refuse a truncated file: mp4 and AVI declare the sizes of their parts, Matroska its duration."""
    found, declared, unit, slack = float(path.stat().st_size), 0.0, "bytes", 0.0
    if "mp4" in container.format.name or container.format.name == "avi":
        declared = _end_of_parts(path)
    elif match := _TAG_TIME.match(stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = (float(part) for part in match.groups())
        found, declared, unit = float(end * stream.time_base), 3600 * hours + 60 * minutes + seconds, "seconds"
        slack = 2 / float(stream.average_rate or 1)
    if found + slack < declared:
        shown = f"{round(found, 2):.10g} of the {round(declared, 2):.10g} {unit}"
        raise UserError(f"frame {packets:06d}: {path} is truncated there, it has {shown} it declares; {_COPY}")


def _end_of_parts(path: Path) -> int:
    """Return where the last part of a file should end: mp4's boxes (ISO/IEC 14496-12, 4.2) or RIFF's chunks.

    Returns 0 if that is unknown.
    """
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if head[:4] == b"RIFF":
                content = int.from_bytes(head[4:8], "little")
                length, kind = content + 8 if content else 0, b"RIFF"
            elif length == 1:
                length = int.from_bytes(head[8:], "big")
            if length < 8 or at + length > size and kind not in (b"mdat", b"moof", b"moov", b"RIFF"):
                return 0
            at += length
    return at


def _has_right_sums(picture: bytes) -> bool:
    """Return whether the slices of an FFV1 picture match the checksums at their ends (RFC 9043, 4.9).

    FFmpeg checks them too, but conceals a wrong slice with one of the previous picture. This CRC-32 is MSB-first and
    starts with 0; on bit-reversed bytes it equals zlib's.
    """
    end = len(picture)
    while end >= 8:
        start = end - 8 - int.from_bytes(picture[end - 8 : end - 5], "big")
        if start < 0 or zlib.crc32(picture[start:end].translate(_REVERSED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = start
    return end == 0


def _warn_of_gaps(path: Path, times: array, unit: Fraction) -> None:
    """Warn where frames may be missing: damaged parts of a Matroska file are skipped silently."""
    steps = [later - time for time, later in zip(times, times[1:], strict=False)]
    if not steps:
        return
    usual, longest = sorted(steps)[len(steps) // 2], max(steps)
    if longest > _GAP * usual:
        at, seconds = steps.index(longest), float(longest * unit)
        LOG.warning(
            "%s: %.2f s between frames %06d and %06d, usually %.2f s; are frames missing there?",
            *(path, seconds, at, at + 1, float(usual * unit)),
        )


def _is_hidden(stream: Any, packet: Any) -> bool:
    """Return whether a packet's picture is never shown: in VP8, its show_frame bit is 0 (RFC 6386, 9.1)."""
    return stream.codec_context.name in ("vp8", "libvpx") and not bytes(packet)[0] >> 4 & 1


def _first_picture(path: Path) -> tuple[tuple[int, int], int, tuple[Doubt, ...]]:
    """Decode the first frame; return (H, W) as coded, the quarter turns to upright, and doubts about the frames."""
    container, stream = open_video(path)
    with container:
        frame = next(_decoded(path, container, stream), None)
        if frame is None:
            raise UserError(f"frame 000000: {path} yields no picture; {_COPY}")
        angle = getattr(frame, "rotation", None)
        if angle is None:  # an older PyAV
            angle = getattr(stream, "side_data", {}).get("DISPLAYMATRIX", 0)
        turns, rest = divmod(round(angle), 90)
        if rest:
            LOG.info("%s: ignoring its rotation of %g degrees, which is not a multiple of 90", path, angle)
            turns = 0
        context = stream.codec_context
        check_matrix(path, frame)
        doubts = [interlaced(path, context)] if frame.interlaced_frame else []
        return (frame.height, frame.width), turns % 4, (*doubts, *colour_doubts(path, context))


def _count(path: Path) -> int:
    """Count the frames by decoding all of them, for files whose packets do not tell."""
    container, stream = open_video(path)
    with container:
        return sum(1 for _ in _decoded(path, container, stream))


def _decoded(path: Path, container: Any, stream: Any) -> Any:
    """Yield all frames from the beginning; errors name the frame."""
    import av

    number = 0
    try:
        for packet in container.demux(stream):
            if not packet.size and packet.dts is not None:
                continue  # a repeated frame in an AVI; a decoder would take it for the end
            for frame in packet.decode():
                yield frame
                number += 1
    except av.FFmpegError as error:
        raise UserError(f"frame {number:06d}: {path} cannot be decoded there ({reason_of(error)}); {_COPY}") from None
