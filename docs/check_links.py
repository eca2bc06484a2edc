"""Check that the documentation names nothing that is missing: `python docs/check_links.py [root]`.

In the Markdown files at the top, under docs/ and under benchmarks/, these must exist: relative links, their anchors,
paths into the repository's folders (`configs/digits_mlp.yaml`, also inside examples), and tests, which are named with
their folder (`tests/models/test_loading.py::test_name`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = "uncertainty|models|training|serving|scale|configs|benchmarks|deploy|docs|docker|examples|tests"
FENCE = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)")
# A path ends in a file's suffix or a slash; that keeps prose such as "training/serving" out.
PATH = re.compile(rf"(?<![\w./<:-])((?:{FOLDERS})/(?:[\w.-]+/)*(?:[\w-]+(?:\.[\w-]+)+)?)(?:::(\w+))?(?![\w/*{{<])")
LONE_TEST = re.compile(r"(?<![\w/])test_\w+\.py(?:::\w+)?")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", flags=re.MULTILINE)


def pages(root: Path) -> list[Path]:
    """The Markdown files that are checked, under `root`."""
    top = [root / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md", "CHANGELOG.md")]
    return [path for path in top if path.is_file()] + sorted(
        [*root.glob("docs/**/*.md"), *root.glob("benchmarks/*.md")]
    )


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get: lower case, no punctuation, hyphens for spaces."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def problems(page: Path, root: Path) -> Iterator[str]:
    """Yield a line for each thing that `page` names and `root` lacks."""
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists():
            yield f"the link '{link}' leads nowhere"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"the link '{link}' leads to a heading that does not exist"
    for test in LONE_TEST.findall(text):
        yield f"the test '{test}' is named without its folder"
    for name, test in PATH.findall(text):
        if not (root / name).exists():
            yield f"the path '{name}' does not exist"
        elif test and not re.search(rf"def {test}\b", (root / name).read_text(encoding="utf-8")):
            yield f"the test '{name}::{test}' does not exist"


def main(root: Path) -> int:
    """Print what is missing; return 1 if anything is."""
    missing = [f"{page.relative_to(root)}: {problem}" for page in pages(root) for problem in problems(page, root)]
    print("\n".join(missing) or f"{len(pages(root))} pages name nothing that is missing")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent))
