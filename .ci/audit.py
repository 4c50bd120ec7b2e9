"""Audits the packages that are installed in this environment: `make audit`.

pip-audit asks an advisory service for known vulnerabilities. A service is trusted only if it reports the known
vulnerabilities of an old release: behind a mirror or a firewall, a service that does not work looks like one that found
nothing. In every case the installed releases must fit each other. (pip does not install yanked releases.)

Exit codes: 0 nothing found, 1 something found, 3 nothing found, but no advisory service could be reached.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOUND, NOT_ASKED = 1, 3
# Lines of "ID until-date reason": vulnerabilities that do not affect this project, to be reviewed after the date.
ALLOWED = Path(__file__).with_name("audit-allowed.txt")
# Every advisory service that works reports this release: its vulnerability has been known since 2019.
CANARY = "jinja2==2.10"
OSV_URL = os.environ.get("AUDIT_OSV_URL", "https://api.osv.dev/v1/query")
SERVICES = (("osv", "--osv-url", OSV_URL), ("pypi",))


def main() -> int:
    """Runs all checks, prints the findings, and returns the exit code."""
    findings = [*find_incompatible(), *find_expired()]
    service = next((service for service in SERVICES if reports_canary(service)), None)
    if service:
        findings += find_vulnerable(service)
    for finding in findings:
        print(f"audit: {finding}")
    if findings:
        return FOUND
    if service is None:
        print("audit: NOT AUDITED for known vulnerabilities: no advisory service can be reached from here (osv, pypi)")
        return NOT_ASKED
    print(f"audit: nothing found; advisories from {service[0]}")
    return 0


def find_incompatible() -> Iterator[str]:
    """Yields the installed packages whose requirements are not met."""
    result = run_pip("check")
    if result.returncode:
        yield from result.stdout.splitlines()


def run_pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs this environment's pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def read_allowed() -> Iterator[tuple[str, datetime.date, str]]:
    """Yields identifier, last day and reason of each allowed vulnerability."""
    for line in ALLOWED.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            identifier, until, reason = line.split(maxsplit=2)
            yield identifier, datetime.date.fromisoformat(until), reason


def find_expired() -> Iterator[str]:
    """Yields the allowed vulnerabilities whose last day is over."""
    today = datetime.datetime.now(datetime.UTC).date()
    for identifier, until, reason in read_allowed():
        if until < today:
            yield f"{ALLOWED.name}: {identifier} was allowed until {until} ({reason}). Update or delete the line."


def reports_canary(service: tuple[str, ...]) -> bool:
    """Returns whether a service reports the vulnerabilities of `CANARY`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "canary.txt").write_text(f"{CANARY}\n", encoding="utf-8")
        packages = run_pip_audit(service, "--requirement", f"{folder}/canary.txt", "--no-deps", "--disable-pip")
    return any(package.get("vulns") for package in packages or ())


def find_vulnerable(service: tuple[str, ...]) -> Iterator[str]:
    """Yields the known vulnerabilities of the installed packages, and the packages that could not be checked."""
    ignored = [option for identifier, _, _ in read_allowed() for option in ("--ignore-vuln", identifier)]
    packages = run_pip_audit(service, "--local", "--skip-editable", *ignored)
    if packages is None:
        yield f"{service[0]} answered for {CANARY}, but not for the installed packages. Run again."
    for package in packages or ():
        if "skip_reason" in package and "editable" not in package["skip_reason"]:
            yield f"{package['name']}: {package['skip_reason']}"
        for vulnerability in package.get("vulns", ()):
            fixed_in = ", ".join(vulnerability["fix_versions"]) or "no release yet"
            yield f"{package['name']} {package['version']}: {vulnerability['id']}; fixed in {fixed_in}"


def run_pip_audit(service: tuple[str, ...], *arguments: str) -> list[dict[str, Any]] | None:
    """Runs pip-audit and returns its result for each package; None if the service does not answer."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", *service, "--format", "json",
               "--progress-spinner", "off", "--timeout", "10", *arguments]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main())
