"""Spike-VRT as a package: `pip install .` puts all modules of the project below it, see docs/installation.md."""

import sys
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[1]
if (_CHECKOUT / "main_test_vrt.py").is_file() and str(_CHECKOUT) not in sys.path:  # not installed, or `pip install -e`
    sys.path.insert(0, str(_CHECKOUT))

from utils import __version__
from utils.utils_error import UserError

__all__ = ["Restorer", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch, which takes seconds, when it is asked for."""
    if name != "Restorer":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from restorer import Restorer

    return Restorer
