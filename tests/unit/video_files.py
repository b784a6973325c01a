"""Small videos for tests, each frame of which says its number."""

from fractions import Fraction

import av
import numpy as np

from utils.utils_video import Converter

SIZE = 48, 64
CELL = 8  # pixels; the number is black and white cells along the top, lowest bit first
H264 = {"g": "10", "bf": "3", "crf": "12"}  # B-frames, and a key frame every 10

IRREGULAR = [3 * number + number * number % 3 for number in range(30)]
PAUSES = [4 * number + number // 10 * 20 for number in range(30)]
OPEN_GOP = {"x264-params": "open-gop=1:keyint=10:min-keyint=5:bframes=3"}
MPEG4 = {"bf": "2", "g": "10", "b": "2000000"}
FILES = {
    "b_frames.mp4": {},
    "b_frames.mkv": {},
    "no_times.avi": {},
    "packed.avi": {"codec": "mpeg4", "options": MPEG4},
    "pauses.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "times": PAUSES},
    "intra.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {"q": "2"}},
    "open_gop.mp4": {"options": OPEN_GOP},
    "refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=10"}},
    "irregular.mp4": {"times": IRREGULAR},
    "irregular.mkv": {"times": IRREGULAR},
    "hidden.webm": {"codec": "libvpx", "options": {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    "full_chroma.mp4": {"pix_fmt": "yuv444p", "size": (47, 63)},
    "odd.mkv": {"codec": "ffv1", "size": (47, 63)},
    "gray.mp4": {"pix_fmt": "gray"},
    "ten_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "deep_gray.mkv": {"codec": "ffv1", "pix_fmt": "gray16le"},
    "rgb.mov": {"codec": "png", "pix_fmt": "rgb24"},
    "alpha.mov": {"codec": "png", "pix_fmt": "rgba"},
    "bgr.avi": {"codec": "rawvideo", "pix_fmt": "bgr24"},
    "half_chroma.mp4": {"pix_fmt": "yuv422p"},
    "full_range.mp4": {"pix_fmt": "yuvj420p"},
    "wide_gamut.mp4": {"context": {"colorspace": 9, "color_primaries": 9, "color_trc": 14}},
}
INTERLACED = {
    "tff.mp4": {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1:weightp=0"}},
    "bff.mp4": {"options": {"flags": "+ildct+ilme", "x264-params": "bff=1:weightp=0"}},
    "dvd.mkv": {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "field_order": "tt"}},
}


def coded(number, size=SIZE):
    """(H, W, 3) uint8: a number in 7 cells along the top, below it ramps that move."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    image = np.stack([60 + (x * 2 + number * 5) % 120, 60 + (y * 2 + number * 3) % 120, np.full_like(x, 128)], axis=2)
    image[:CELL] = 16
    for bit in range(7):
        if number >> bit & 1:
            image[:CELL, bit * CELL : (bit + 1) * CELL] = 235
    return image.astype(np.uint8)


def number_of(image):
    """The number in a coded frame."""
    return sum(1 << bit for bit in range(7) if image[2:6, bit * CELL + 2 : bit * CELL + 6].mean() > 128)


def make_video(
    path, frames=30, codec="libx264", pix_fmt="yuv420p", size=SIZE, options=None, times=None, turn=0, context=None
):
    """Write coded frames with PyAV alone; `times`, in hundredths of a second, are otherwise those of 25 a second.

    `context` has attributes of the encoder's context: shape of pixels, colours.
    """
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, 25, options=H264 if options is None and codec == "libx264" else options)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        if times:
            stream.codec_context.time_base = Fraction(1, 100)
        for name, value in (context or {}).items():
            setattr(stream.codec_context, name, value)
        if turn:
            stream.set_display_rotation(turn)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(coded(number, size), "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, 100 if times else 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_planes(path, planes, codec, pix_fmt, colorspace, color_range):
    """Write three frames of the planes (h, w), uint8 or uint16 each, with a matrix and a range in their tags."""
    height, width = planes[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 25, options={"qp": "0"} if codec == "libx264" else {})
        stream.height, stream.width = height, width
        stream.pix_fmt = pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        for _ in range(3):
            frame = av.VideoFrame(width, height, pix_fmt)
            for plane, values in zip(frame.planes, planes, strict=True):
                rows = np.zeros((plane.height, plane.line_size), np.uint8)
                packed = values.view(np.uint8).reshape(len(values), -1)
                rows[:, : packed.shape[1]] = packed
                plane.update(rows)
            frame.colorspace, frame.color_range = colorspace, color_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def in_order(path):
    """All frames of a file as a decoder gives them from the beginning to the end, (H, W, 3) uint8 each."""
    with av.open(str(path)) as container:
        return [Converter(frame)(frame).to_ndarray() for frame in container.decode(video=0)]


def packets(path):
    """(position in the file, size) of the packets with pictures, in their order."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
