"""Hooks for mkdocs: pages are written for the repository, and the site shows the same files.

- Pages outside ``docs/`` (``OUTSIDE``) become pages of the site.
- A link to a page is relative to the file that holds it, as in the repository. Of a link to any other file, such as a
  test, the site keeps the text only.
- A list may follow a paragraph without a blank line, as in CommonMark.
- Docstrings are shown without Sphinx's marks: the role before a name, and the second colon before a block of code.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE.txt",
    "benchmarks/README.md": "benchmarks.md",
}

_FENCED_BLOCK = re.compile(r"(^```.*?^```)", flags=re.M | re.S)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_PARAGRAPH_BEFORE_LIST = re.compile(r"^(?![-*#|>\s]|\d+\.)(.+\n)(?=[-*] )", flags=re.M)
_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):<code>~?")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside ``docs/``."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links and lists outside code blocks."""
    source = Path(page.file.abs_src_path or "").relative_to(ROOT)

    def relink(match: re.Match[str]) -> str:
        target, hash_sign, anchor = match["target"].partition("#")
        if not target or ":" in target:
            return match[0]
        uri = _site_uri(PurePosixPath(os.path.normpath(source.parent / target)))
        if files.get_file_from_path(uri) is None and (ROOT / source.parent / target).exists():
            return match["text"]
        relative = os.path.relpath(uri, PurePosixPath(page.file.src_uri).parent)
        return f"{match['image']}[{match['text']}]({PurePosixPath(relative)}{hash_sign}{anchor})"

    parts = _FENCED_BLOCK.split(markdown)  # text, block, text, block, …
    parts[::2] = [_PARAGRAPH_BEFORE_LIST.sub(r"\1\n", _LINK.sub(relink, text)) for text in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take Sphinx's marks out of docstrings."""
    return _ROLE.sub("<code>", html).replace("<p>::</p>", "").replace("::</p>", ":</p>")


def _site_uri(path: PurePosixPath) -> str:
    """Where the site has a file of the repository, whose path is relative to the root."""
    if str(path) in OUTSIDE:
        return OUTSIDE[str(path)]
    return str(path.relative_to("docs")) if path.is_relative_to("docs") else str(path)
