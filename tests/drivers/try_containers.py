"""Tries to build and run an image with one program, with the options of tests/images.

    python -m try_containers

Prints the reason and returns the exit code 3 if this machine cannot: within another container, for example.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from container_engine import Engine, find_missing_programs

# Statically linked on Debian, and part of every installation: the image needs no other file.
PROGRAM = Path("/sbin/ldconfig")
CANNOT = 3


def main() -> int:
    """Builds and runs the image. Returns the exit code."""
    if missing := find_missing_programs():
        print(f"This machine lacks: {', '.join(missing)}")
        return CANNOT
    with tempfile.TemporaryDirectory(prefix="spamscore-try-", dir="/var/tmp") as name:
        folder = Path(name)
        engine = Engine(folder)
        context = folder / "context"
        context.mkdir()
        shutil.copy(PROGRAM, context / "program")
        dockerfile = 'FROM scratch\nCOPY program /program\nRUN ["/program", "--version"]\nENTRYPOINT ["/program"]\n'
        (context / "Dockerfile").write_text(dockerfile, encoding="utf-8")
        try:
            engine.call("build", "--isolation", "chroot", "--tag", "localhost/try:test", context)
            done = engine.run("localhost/try", "--version")
            assert done.code == 0, done.output
        except AssertionError as error:
            print(f"No container runs here: {str(error).strip()[-500:]}")
            return CANNOT
        finally:
            engine.clean()
    return 0


if __name__ == "__main__":
    sys.exit(main())
