"""A hook of MkDocs: pages that lie outside docs/ become pages of the site, and links between all of them are mended."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "RELEASING.md": "releasing.md",
    "benchmarks/README.md": "benchmarks.md",
}
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's top to those of docs/."""
    root = Path(config.config_file_path).parent
    for source, name in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(root / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn a link as the repository has it into one that the site has."""
    sources = {name: source for source, name in OUTSIDE.items()}
    name = page.file.src_uri
    source = sources.get(name, f"docs/{name}")

    def mended(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        there = OUTSIDE.get(target, target.removeprefix("docs/"))
        return match[1] + posixpath.relpath(there, posixpath.dirname(name) or ".") + match[3]

    return LINK.sub(mended, markdown)
