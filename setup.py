"""Build the package `spikevrt`, which holds all modules of the checkout. What else there is to say: pyproject.toml.

An application often has `utils`, `data` or `models` of its own. So the package keeps ours below its own name, and their
imports are changed to it as they are copied: `from utils import x` becomes `from spikevrt.utils import x`.
"""

import atexit
import re
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = "spikevrt"
FOLDERS = ["data", "model_zoo", "models", "options", "scripts", "utils"]
MODULES = ["main_test_vrt", "main_train_vrt", "restorer"]
OURS = re.compile(rf"^(\s*from )(?=(?:{'|'.join(FOLDERS + MODULES)})(?:\.\w+)* import\b)", re.MULTILINE)
FILES = ["*.html", "*.json", "*.md", "*.safetensors"]
LISTS = ["requirement.txt", "requirement-dev.txt"]  # the doctor reads them


class BuildPackage(build_py):
    """Copies the modules into the package."""

    def run(self) -> None:
        """Copy everything."""
        super().run()
        for name in LISTS if not self.editable_mode else ():
            self.copy_file(name, str(Path(self.build_lib, PACKAGE, name)))

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """List a folder's modules as (package, name, file), with those of the checkout's own folder in `spikevrt`."""
        found: list[tuple[str, str, str]] = super().find_package_modules(package, package_dir)
        return found + [(package, name, f"{name}.py") for name in MODULES if package == PACKAGE]

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        """Copy a module and change its imports; returns the copy and whether it is new."""
        copy, is_new = super().build_module(module, module_file, package)
        path = Path(copy)
        path.write_text(OURS.sub(rf"\1{PACKAGE}.", path.read_text(encoding="utf-8")), encoding="utf-8")
        return copy, bool(is_new)


below = find_namespace_packages(include=FOLDERS + [f"{folder}.*" for folder in FOLDERS])
# Not into build/ and *.egg-info here: another build would take over what is left there of modules that are gone.
scratch = tempfile.mkdtemp()
atexit.register(shutil.rmtree, scratch, ignore_errors=True)
places = {"build": {"build_base": scratch}, "egg_info": {"egg_base": scratch}}
if "sdist" in sys.argv:
    del places["egg_info"]  # it is part of the archive
setup(
    cmdclass={"build_py": BuildPackage},
    options=places,
    packages=[PACKAGE, *(f"{PACKAGE}.{name}" for name in below if not name.endswith("__pycache__"))],
    package_dir={f"{PACKAGE}.{folder}": folder for folder in FOLDERS},
    package_data={"": FILES},
)
