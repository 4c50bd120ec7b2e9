"""Removes from installed packages what a night on a CPU never loads, and the symbol tables of large libraries.

    python slim.py SITE_PACKAGES [PART]...      PART: spark, for an environment with PySpark

Each entry has its reason. An entry that matches nothing is an error: the package has changed, and the list must be read
again. `make test-images` runs the whole chain in an environment that this script has reduced.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

# Glob patterns below site-packages, and why nothing of the image needs the files.
REMOVED = {
    "tensorflow/include": "headers for compiling operations in C++",
    "tensorflow/compiler/mlir/stablehlo/*.so": "a converter between formats of compilers",
    "tensorflow/compiler/tf2xla/ops/_xla_ops.so": "operations for graphs that another program compiles ahead of time",
    "tensorflow/xla_aot_runtime_src": "sources of the run time of models compiled ahead of time",
    "tensorboard/webfiles.zip": "the page of TensorBoard; training writes its logs without it",
    "tensorboard_data_server/bin": "the server of TensorBoard's page",
    "clang": "libclang, which TensorFlow declares and does not import",
    "pyarrow/include": "headers for compiling extensions",
    "pyarrow/src": "sources of extensions",
    "pyarrow/libarrow_flight.so*": "a protocol between servers that no part uses",
    "pyarrow/_flight*.so": "the bindings of libarrow_flight",
    "numpy/_core/include": "headers for compiling extensions",
    "numpy/_core/lib": "static libraries for compiling extensions",
    "llvmlite/tests": "tests",
    "numba/tests": "tests",
    "*/tests": "tests",
    "*/*/tests": "tests",
    "*/*/*/tests": "tests",
    "matplotlib/mpl-data/sample_data": "data of examples",
    "sklearn/datasets/data": "data sets of examples",
    "sklearn/datasets/images": "images of examples",
    "**/*.pyi": "types for editors and type checkers",
    "**/*.pyx": "sources of compiled modules",
    "**/*.pxd": "declarations for compiling other modules",
}

# Entries for PySpark. Executors run tasks on RDDs; no SQL, Hive, Spark Connect or streaming.
REMOVED_SPARK = {
    "pyspark/jars/connect-repl": "the shell of Spark Connect",
    "pyspark/jars/spark-connect_*.jar": "the server of Spark Connect",
    "pyspark/jars/rocksdbjni-*.jar": "state of streaming queries",
    "pyspark/jars/hive-*.jar": "Hive's metastore",
    "pyspark/jars/spark-hive*.jar": "Hive's metastore",
    "pyspark/examples": "examples",
    "pyspark/data": "data of examples",
}

# Libraries whose symbol tables are removed. Dynamic loading does not use them; a debugger would show names from them.
STRIPPED = (
    "tensorflow/libtensorflow_cc.so.2",
    "tensorflow/libtensorflow_framework.so.2",
    "tensorflow/python/lib_pywrap_tensorflow_common.so",
    "tensorflow/python/profiler/internal/_pywrap_profiler_plugin.so",
    "llvmlite/binding/libllvmlite.so",
)


def main(arguments: list[str]) -> int:
    """Reduces the packages of a folder, and prints the size before and after. Returns the exit code."""
    folder, parts = Path(arguments[0]), arguments[1:]
    if not (folder / "tensorflow").is_dir():
        print(f"slim.py: {folder}/tensorflow: no such folder. Expected the site-packages of an environment")
        return 1
    before = measure(folder)
    patterns = [*REMOVED, *(REMOVED_SPARK if "spark" in parts else ())]
    unmatched = [pattern for pattern in patterns if not remove(folder, pattern)]
    if unmatched:
        print(f"slim.py: {folder}: nothing matches {', '.join(unmatched)}. Correct the list in slim.py")
        return 1
    for name in STRIPPED:
        subprocess.run(["strip", "--strip-unneeded", folder / name], check=True)
    print(f"{folder}: {before / 1e6:.0f} MB, reduced to {measure(folder) / 1e6:.0f} MB")
    return 0


def remove(folder: Path, pattern: str) -> int:
    """Removes what matches a pattern, and returns the number of files and folders that did."""
    paths = list(folder.glob(pattern))
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(paths)


def measure(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
