"""Reads files in a process of its own, so that a file on which the HDF5 library hangs or crashes takes only that.

Started by :mod:`deploy.graph.probe` with ``python -I``. The first line on standard input is the module path and the
memory limit; each further line names a file. One line of JSON answers each.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path


def _answer(request: dict[str, object]) -> dict[str, object]:
    from deploy.errors import NeurokdError
    from deploy.graph.hdf5 import Limits, read_tree

    # Reading that never ends must end even where nobody is left to stop it.
    spent = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent.ru_utime + spent.ru_stime) + int(str(request["seconds"])), -1))
    try:
        read_tree(Path(str(request["path"])), Limits(max_bytes=int(str(request["max_bytes"]))))
    except NeurokdError as error:
        return {"kind": type(error).__name__, **error.fields()}
    return {}


def main() -> None:
    """Answer until standard input ends."""
    setup = json.loads(sys.stdin.readline())
    sys.path[:] = setup["path"]
    resource.setrlimit(resource.RLIMIT_AS, (setup["memory"], setup["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import deploy.graph.hdf5  # noqa: F401 - before "ready", so that importing does not count as reading

    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
