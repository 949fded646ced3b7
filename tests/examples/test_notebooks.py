"""The notebooks of the examples, run from the first cell to the last in a kernel of their own."""

import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tests.examples.conftest import FOLDER

NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*/*.ipynb"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_from_top_to_bottom(name, example, tmp_path, monkeypatch):
    """Its commands are real ones; the dataset stands already, so that no server has to start."""
    shutil.copytree(
        FOLDER, tmp_path / "examples", ignore=shutil.ignore_patterns("data", "out", "__pycache__")
    )
    folder = tmp_path / "examples" / name
    shutil.copytree(example(name).folder, folder, dirs_exist_ok=True)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "what it printed once is not kept"
    done = NotebookClient(
        notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    done.execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "nothing to do" in said, said
