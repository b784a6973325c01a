"""Compare the size and bit order that a bare spike stream's bytes imply with those declared."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data.geometry import size_text
from data.spike import texture
from data.spike.doctor.declared import Declared, Size
from data.spike.formats import RAW416, RAW416_PICTURE, Format, is_raw416
from utils.spike_loader import BitOrder, fitting_sizes, steps_in
from utils.utils_error import UserError

DEFAULT_ORDER: BitOrder = "little"
DEFAULT_FLIPUD = True


@dataclass
class Report:
    """The findings about one file.

    `wrong`: contradictions of what is declared about the file, or of the readers' defaults.
    `notes`: everything else: sensor defects, guesses, what could not be checked.
    """

    file: str
    bytes: int
    format: Format
    size: Size  # as stored, row headers included
    steps: int
    bit_order: BitOrder | None  # None if the file is not packed
    flipud: bool
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; `ok` is false if something is wrong."""
        return {"ok": not self.wrong, **vars(self)}


def examine(packed: np.ndarray, name: str, declared: Declared, *, header: bool = False) -> Report:
    """Examine the bytes of a stream: size, step length, width, bit order.

    Args:
        packed: (n,) uint8, n > 0.
        name: name of the file.
        declared: what is declared about it.
        header: the user declares rows of 416 bits with a header.

    Returns:
        A report; its flip is the declared one, or the default.

    Raises:
        UserError: no size is declared, or the declared size does not fit, and the stream implies none.
    """
    notes: list[str] = []
    wrong: list[str] = []
    size = _size(packed, name, declared, header, wrong, notes)
    step = size[0] * size[1] // 8
    steps, rest = divmod(packed.size, step)
    if rest:
        wrong.append(f"truncated: {steps} whole steps of {size_text(size)} and {rest} bytes more; copy the file again")
    sources = list(declared.sizes.items())
    wrong += [
        f"{source} says {size_text(other)}, {sources[0][0]} says {size_text(sources[0][1])}; correct one of them"
        for source, other in sources[1:]
        if other != sources[0][1]
    ]
    seams = texture.seam(texture.mean_plane(packed, step))
    order = _bit_order(seams, declared, wrong, notes)
    flipud = next(iter(declared.flips.values()), DEFAULT_FLIPUD)
    kind: Format = "raw416" if header or is_raw416(packed, size) else "dat"
    evidence = {"seam": seams, "candidates": candidates(packed, [size, *declared.sizes.values()])}
    return Report(name, packed.size, kind, size, steps, order, flipud, wrong, notes, evidence)


def candidates(packed: np.ndarray, first: list[Size]) -> list[dict[str, Any]]:
    """Rate every fitting size in use and those in `first`: periodic ones first, then by row difference.

    Returns:
        For each: `size`, `steps` (whole or not), `periodicity` (see `texture.periodicity`), `rows` (0: neighbouring
        rows are equal, 1: unrelated), `seam` (positive: little, negative: big bit order).
    """
    rows: list[dict[str, Any]] = []
    for size in dict.fromkeys([*first, *fitting_sizes(packed.size)]):
        step = size[0] * size[1] // 8
        if size[0] * size[1] % 8 or not 0 < step <= packed.size:
            continue
        plane = texture.mean_plane(packed, step)
        order: BitOrder = "big" if texture.seam(plane) < 0 else "little"
        rows.append(
            {
                "size": list(size),
                "steps": packed.size / step,
                "periodicity": texture.periodicity(packed, step),
                "rows": texture.row_difference(plane, size[1], order).value,
                "seam": texture.seam(plane),
            }
        )
    return [*rows[:1], *sorted(rows[1:], key=lambda row: (row["periodicity"] < texture.PERIODIC_MIN, row["rows"]))]


def _size(packed: np.ndarray, name: str, declared: Declared, header: bool, wrong: list[str], notes: list[str]) -> Size:
    """Return the size that the stream clearly implies, otherwise the declared one."""
    sizes = [RAW416 if header and size == RAW416_PICTURE else size for size in declared.sizes.values()]
    found = RAW416 if header else texture.find_geometry(packed, [*sizes, RAW416])
    if not sizes:
        if found is None:
            raise UserError(f"{name}: {_no_size(packed)}; give --spike_h and --spike_w if these are spikes")
        notes.append(f"no size is declared; the stream implies {size_text(found)}")
        return found
    first = sizes[0]
    if first == RAW416_PICTURE and found == RAW416 and is_raw416(packed, RAW416):
        return RAW416
    misfit = _misfit(packed, first)
    if misfit and found is None:
        raise UserError(f"{name}: {misfit}")
    if found is None or found == first or not (misfit or texture.suits_better(packed, found, first)):
        if not misfit and not _is_plausible(packed, first):
            notes.append(f"the stream neither confirms nor contradicts {size_text(first)}")
        return first
    steps = packed.size * 8 // (found[0] * found[1])
    wrong.append(
        f"{size_text(first)} ({next(iter(declared.sizes))}) is wrong: these are {steps} steps of {size_text(found)}"
    )
    return found


def _is_plausible(packed: np.ndarray, size: Size) -> bool:
    """Return whether the stream's periodicity or the similarity of its rows supports a size."""
    step = size[0] * size[1] // 8
    if texture.periodicity(packed, step) >= texture.PERIODIC_MIN:
        return True
    rows = texture.row_difference(texture.mean_plane(packed, step), size[1])
    return texture.Mean(1.0, 0.0).exceeds(rows) > texture.SIGNIFICANT


def _misfit(packed: np.ndarray, size: Size) -> str | None:
    try:
        steps_in(packed.size, *size)
    except UserError as error:
        return str(error)
    return None


def _no_size(packed: np.ndarray) -> str:
    fitting = ", ".join(map(size_text, fitting_sizes(packed.size))) or "none"
    return f"no step length found in its {packed.size} bytes (sizes in use that would fit: {fitting})"


def _bit_order(seams: float, declared: Declared, wrong: list[str], notes: list[str]) -> BitOrder:
    """Return the bit order that the seams imply, else the declared one."""
    orders = declared.orders or {"the default": DEFAULT_ORDER}
    if abs(seams) < texture.SIGNIFICANT:
        source, order = next(iter(orders.items()))
        notes.append(f"the stream does not show its bit order; using {order} ({source})")
        return order
    found: BitOrder = "little" if seams > 0 else "big"
    which = "highest" if found == "big" else "lowest"
    contradicted = ", ".join(source for source, order in orders.items() if order != found)
    if contradicted:
        wrong.append(f"bits are stored {which} first: bit_order {found}, not as {contradicted} says")
    return found
