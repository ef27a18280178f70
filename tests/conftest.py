"""What all tests share: real files from Debian packages, and no silent skips in CI.

Rules:
  1. A test marked ``debian(package, file)`` is skipped, naming the package, where the file is not.
  2. With FIRMLEDGER_NO_SKIP set (as ``.ci/run`` does) every skip is a failure, with its reason.
     An expected failure (xfail) is no skip: it ran.
  3. Nothing is judged by a stopwatch: Hypothesis has no deadline here.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
DEBIAN_PACKAGES = ROOT / ".ci" / "debian-packages"

settings.register_profile("firmledger", deadline=None)
settings.load_profile("firmledger")


def debian_packages() -> list[str]:
    """The packages that ``.ci/run`` installs."""
    lines = DEBIAN_PACKAGES.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose Debian file is absent; refuse a package that CI does not install."""
    for mark in item.iter_markers("debian"):
        package, file = mark.args
        if package not in debian_packages():
            raise pytest.UsageError(f"{item.nodeid}: {package} is not in .ci/debian-packages")
        if not Path(file).exists():
            pytest.skip(f"needs {file} of the Debian package {package}: apt-get install {package}")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    if os.environ.get("FIRMLEDGER_NO_SKIP"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped where no test may be: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one under FIRMLEDGER_NO_SKIP."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped file into a failed one under FIRMLEDGER_NO_SKIP."""
    report = yield
    _fail_if_skipped(report)
    return report
