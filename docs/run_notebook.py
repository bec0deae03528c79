"""Run the code of a notebook in IPython, as Jupyter would, without its server.

The tests run the documentation's notebooks and compare the outputs with those in the file.
``python docs/run_notebook.py`` writes the outputs anew.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent


def all_notebooks() -> list[Path]:
    """Every notebook below docs/."""
    return sorted(DOCS.rglob("*.ipynb"))


def read(notebook: Path) -> dict[str, Any]:
    """The notebook's document (nbformat 4)."""
    document: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    return document


def run(document: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell, in nbformat's form; raises what a cell raises.

    The cells run in an empty temporary folder, one after the other in one namespace.
    """
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    outputs = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in document["cells"]:
            if cell["cell_type"] == "code":
                outputs.append(_outputs_of(shell, "".join(cell["source"]), len(outputs) + 1))
    return outputs


def _outputs_of(shell: Any, source: str, number: int) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    shell.display_pub.publish = lambda data, metadata=None, **_: shown.append(
        {"output_type": "display_data", "data": data, "metadata": metadata or {}}
    )
    printed = io.StringIO()
    shell.displayhook.write_output_prompt = shell.displayhook.write_format_data = lambda *_: None
    shell.displayhook.finish_displayhook = lambda: None
    data: dict[str, Any] = {}
    with contextlib.redirect_stdout(printed):  # which is not a terminal, whose width tables would fit
        done = shell.run_cell(source, store_history=False)
        done.raise_error()
        if done.result is not None:
            data, metadata = shell.display_formatter.format(done.result)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue().strip():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue()})
    outputs += shown
    if data:
        result = {"output_type": "execute_result", "data": data, "metadata": metadata, "execution_count": number}
        outputs.append(result)
    return [_in_text(output) for output in outputs]


def _in_text(output: dict[str, Any]) -> dict[str, Any]:
    data = output.get("data", {})
    for kind, content in data.items():
        if isinstance(content, bytes):
            data[kind] = base64.b64encode(content).decode("ascii")
    return output


def main() -> None:
    """Write the outputs of every notebook anew."""
    for notebook in all_notebooks():
        document = read(notebook)
        code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
        for number, (cell, outputs) in enumerate(zip(code, run(document), strict=True), 1):
            cell["outputs"], cell["execution_count"] = outputs, number
        notebook.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(notebook, f"{notebook.stat().st_size / 1e3:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
