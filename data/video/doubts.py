"""What makes the pictures of a video other than they seem: woven fields, HDR, colours of other primaries."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from utils.utils_error import UserError

# Code points of ISO/IEC 23091-2 and of FFmpeg; those that are not named look right as BT.709.
_TRANSFERS = {8: "linear light", 9: "logarithmic", 10: "logarithmic", 16: "PQ", 17: "SMPTE ST 428", 18: "HLG"}
_PRIMARIES = {9: "BT.2020", 10: "CIE XYZ", 11: "DCI-P3", 12: "Display P3"}
_UNKNOWN_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "a matrix of its primaries",
    13: "a matrix of its primaries",
    14: "ICtCp",
    15: "IPT-PQ-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
_HDR = {16, 18}
_FIELDS = {2: "top field first", 3: "bottom field first", 4: "bottom field first", 5: "top field first"}
_TO_BT709 = "zscale=p=bt709:t=bt709:m=bt709"
_TONE_MAP = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
)


class Doubt(NamedTuple):
    """Something about a video that makes its frames other than a reader of pictures takes them for.

    Attributes:
        what: says what it is, to follow the name of the file.
        cure: says what to do.
        shows_light: whether the frames still show light at one moment each, by the curve of sRGB.
    """

    what: str
    cure: str
    shows_light: bool = False


def interlaced(path: Path, context: Any) -> Doubt:
    """Say that the frames of a file are interlaced, in which order if its decoder's context knows."""
    order = _FIELDS.get(int(getattr(context, "field_order", 0)))  # not in older PyAV
    return Doubt(
        f"is interlaced{f' ({order})' if order else ''}: each frame weaves rows of two moments",
        f"deinterlace it first: {_ffmpeg(path, 'bwdif')}",
    )


def colour_doubts(path: Path, context: Any) -> Iterator[Doubt]:
    """Look for colours that are not those of BT.709 and sRGB once the matrix is undone."""
    transfer, gamut = int(context.color_trc), _PRIMARIES.get(int(context.color_primaries))
    if transfer in _TRANSFERS:
        names = ", ".join(name for name in (_TRANSFERS[transfer], gamut) if name)
        kind = f"is HDR ({names})" if transfer in _HDR else f"has another tone curve ({names})"
        cure = _ffmpeg(path, _TONE_MAP if transfer in _HDR else _TO_BT709)
        yield Doubt(f"{kind}: taken as BT.709, its colours are wrong", f"convert it first: {cure}")
    elif gamut:
        what = f"has colours of {gamut}: taken as BT.709, they look pale"
        yield Doubt(what, f"convert it first: {_ffmpeg(path, _TO_BT709)}", shows_light=True)


def check_matrix(path: Path, frame: Any) -> None:
    """Refuse a picture whose colours cannot be turned into RGB.

    Raises:
        UserError: they cannot; names their matrix and what to do.
    """
    if matrix := _UNKNOWN_MATRICES.get(int(frame.colorspace)):
        raise UserError(
            f"{path} has colours in {matrix}, from which FFmpeg's scale filter knows no way to RGB; convert it "
            f"first: {_ffmpeg(path, _TO_BT709)}"
        )


def _ffmpeg(path: Path, filters: str) -> str:
    return f"ffmpeg -i {path.name} -vf {filters} -c:v ffv1 {path.stem}_new.mkv"
