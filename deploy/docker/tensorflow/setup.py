"""An empty distribution `tensorflow` that depends on `tensorflow-cpu` of the same version.

Both have the same modules. Packages that require `tensorflow`, and programs that ask for its version, find it here.
"""

import re
from pathlib import Path

from setuptools import setup

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
VERSION = re.findall(r"^tensorflow-cpu==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)[0]

setup(name="tensorflow", version=VERSION, install_requires=[f"tensorflow-cpu=={VERSION}"], py_modules=[])
