"""`make gpu`: checks training and scoring on the GPUs of this machine, and prints a row for each check.

Exit codes: 0 every row passed, 1 a row failed, 3 the machine has no GPU. Run it while nothing else uses the GPUs.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from checks import FAILED, JobError, check_auto, check_memory, check_trainings, format_row, run_job

PASSED_CODE, FAILED_CODE, NO_GPU_CODE = 0, 1, 3


def find_names(devices: str | None) -> list[str]:
    """Returns the names of the devices to check, such as gpu:0; without `devices`, those of every GPU."""
    if devices is None:
        try:
            names: list[str] = run_job("list_gpus")
        except JobError as error:
            sys.exit(f"gpu: TensorFlow cannot be started: {error}")
        return names
    names = devices.lower().split(",")
    if not all(re.fullmatch(r"(cpu|gpu):\d+", name) for name in names):
        sys.exit(f"gpu: --devices {devices}: expected names such as cpu:0,cpu:1 or gpu:0, separated by commas")
    return names


def main() -> None:
    """Runs the checks and exits with the code."""
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", help="devices to check, such as gpu:0 or cpu:0,cpu:1 (default: every GPU)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each training (default: 3)")
    parser.add_argument("--quick", action="store_true", help="train a small network")
    options = parser.parse_args()
    names = find_names(options.devices)
    if not names:
        print(
            "gpu: TensorFlow finds no GPU on this machine (docs/how-to/gpu.md). "
            "To try the checks on logical CPUs: make gpu GPU='--devices cpu:0,cpu:1'",
            file=sys.stderr,
        )
        sys.exit(NO_GPU_CODE)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for check in (
            lambda: check_auto(names),
            lambda: check_memory(names),
            lambda: check_trainings(names, Path(folder), options.epochs, options.quick),
        ):
            for row in check():
                print(format_row(row), flush=True)
                failed = failed or row.state == FAILED
    sys.exit(FAILED_CODE if failed else PASSED_CODE)


if __name__ == "__main__":
    main()
