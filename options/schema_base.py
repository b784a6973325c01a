"""Shared base of all option blocks: strict parsing and value types."""

import os
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WrapValidator


class Block(BaseModel):
    """One `{...}` of an option file: frozen, no unknown keys, no silent conversions ("4" is not a number)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


def _file_path(value: str) -> str:
    if any(ord(sign) < ord(" ") for sign in value):
        raise ValueError("must not contain tabs or line breaks: \\ starts an escape in JSON; write / or \\\\ in a path")
    return os.path.expanduser(value)


def in_words(wanted: str) -> WrapValidator:
    """Report a text that does not match its pattern as "must be <wanted>"."""

    def check(value: Any, follow: Callable[[Any], Any]) -> Any:
        try:
            return follow(value)
        except ValidationError as error:
            if error.errors()[0]["type"] != "string_pattern_mismatch":
                raise
            raise ValueError(f"must be {wanted}") from None

    return WrapValidator(check)


def raise_all(problems: list[str]) -> None:
    """Raise one ValueError that lists all problems, if there are any."""
    if problems:
        raise ValueError("; ".join(problems))


Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
OddCount = Annotated[int, Field(ge=1), AfterValidator(_odd)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]

Wholes = Annotated[tuple[Whole, ...], Field(strict=False)]
Counts = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]
Sizes = Annotated[tuple[Count, Count, Count], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
FilePath = Annotated[str, Field(min_length=1), AfterValidator(_file_path)]
