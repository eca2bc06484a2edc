"""What pip-audit found, in a few lines; it calls packages that it could not look up free of known vulnerabilities."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(report: str) -> int:
    """Print it.

    Args:
        report: File that pip-audit wrote as JSON.

    Returns:
        1 if anything has a known vulnerability.
    """
    packages = json.loads(Path(report).read_text(encoding="utf-8"))["dependencies"]
    looked_up = [package for package in packages if "skip_reason" not in package]
    if not looked_up:
        print(f"audit: skipped: none of {len(packages)} packages could be looked up from here")
        return 0
    wrong = [package for package in looked_up if package["vulns"]]
    for package in wrong:
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no version"
            print(f"audit: {package['name']} {package['version']}: {found['id']}, mended in {mended}")
    print(f"audit: {len(looked_up)} of {len(packages)} packages looked up, {len(wrong)} with known vulnerabilities")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
