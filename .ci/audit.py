"""Audits what is installed in this environment: `make audit`.

Known vulnerabilities come from an advisory service by way of pip-audit. A service is believed only once it has named
those of an old release that has some: behind a mirror or a firewall, silence looks like a clean bill. Whether or not
one answers, the installed releases must fit each other. (One that its makers took back, pip does not choose.)

Exit codes: 0 nothing found, 1 something found, 3 nothing found, but no advisory service could be asked.
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
# Lines of "ID until-date reason": what is known, does not concern us, and is looked at again when its date has come.
ALLOWED = Path(__file__).with_name("audit-allowed.txt")
# Vulnerable since 2019, whatever else an advisory service knows.
CANARY = "jinja2==2.10"
OSV_URL = os.environ.get("AUDIT_OSV_URL", "https://api.osv.dev/v1/query")
SERVICES = (("osv", "--osv-url", OSV_URL), ("pypi",))


def main() -> int:
    """Runs every check, and says what each came to."""
    findings = [*inconsistent(), *expired()]
    service = next((one for one in SERVICES if knows_the_canary(one)), None)
    if service:
        findings += vulnerable(service)
    for finding in findings:
        print(f"audit: {finding}")
    if findings:
        return FOUND
    if service is None:
        print("audit: NOT AUDITED for known vulnerabilities: no advisory service can be asked from here (osv, pypi)")
        return NOT_ASKED
    print(f"audit: nothing found; advisories by {service[0]}")
    return 0


def inconsistent() -> Iterator[str]:
    """Distributions whose requirements are not met."""
    done = pip("check")
    if done.returncode:
        yield from done.stdout.splitlines()


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs this environment's pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def allowed() -> Iterator[tuple[str, datetime.date, str]]:
    """Identifier, last day and reason of each vulnerability that is let pass."""
    for line in ALLOWED.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            identifier, until, reason = line.split(maxsplit=2)
            yield identifier, datetime.date.fromisoformat(until), reason


def expired() -> Iterator[str]:
    """What was let pass until a day that is over."""
    today = datetime.datetime.now(datetime.UTC).date()
    for identifier, until, reason in allowed():
        if until < today:
            yield f"{ALLOWED.name}: {identifier} was let pass until {until} ({reason}). Look again."


def knows_the_canary(service: tuple[str, ...]) -> bool:
    """Whether a service names the vulnerabilities of a release that has some."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "canary.txt").write_text(f"{CANARY}\n", encoding="utf-8")
        answer = asked(service, "--requirement", f"{folder}/canary.txt", "--no-deps", "--disable-pip")
    return any(one.get("vulns") for one in answer or ())


def vulnerable(service: tuple[str, ...]) -> Iterator[str]:
    """Known vulnerabilities of what is installed, and what a service could not be asked about."""
    ignored = [option for identifier, _, _ in allowed() for option in ("--ignore-vuln", identifier)]
    answer = asked(service, "--local", "--skip-editable", *ignored)
    if answer is None:
        yield f"{service[0]} answered for {CANARY} and then no more. Run again."
    for one in answer or ():
        if "skip_reason" in one and "editable" not in one["skip_reason"]:
            yield f"{one['name']}: {one['skip_reason']}"
        for known in one.get("vulns", ()):
            mended = ", ".join(known["fix_versions"]) or "no release yet"
            yield f"{one['name']} {one['version']}: {known['id']}; mended in {mended}"


def asked(service: tuple[str, ...], *arguments: str) -> list[dict[str, Any]] | None:
    """What pip-audit has to say of each distribution; None where the service does not answer."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", *service, "--format", "json",
               "--progress-spinner", "off", "--timeout", "10", *arguments]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main())
