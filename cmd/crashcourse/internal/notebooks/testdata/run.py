"""Runs a notebook from top to bottom, several times over in one kernel.

    run.py NOTEBOOK ROUNDS OUT

OUT gets one JSON list per round, with a list of outputs and a time for each
code cell, and is written after each round.
"""
import json
import os
import sys
import time

import nbformat
from nbclient import NotebookClient


def main():
    path, rounds, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=180,
        allow_errors=True,
        resources={"metadata": {"path": os.environ["NOTEBOOK_FOLDER"]}},
    )
    result = []
    with client.setup_kernel():
        for _ in range(rounds):
            cells = []
            for index, cell in enumerate(notebook.cells):
                if cell.cell_type != "code":
                    continue
                began = time.monotonic()
                client.execute_cell(cell, index)
                cells.append({"id": cell.id, "seconds": time.monotonic() - began, "outputs": cell.outputs})
            result.append(cells)
            with open(out, "w") as f:
                json.dump(result, f)


main()
