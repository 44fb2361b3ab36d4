"""The repairs touch Lava's classes and nothing else; the parent process never loads them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from deploy.loihi import repair

DEFAULTS = textwrap.dedent("""
    import dataclasses, runpy, sys
    applied = runpy.run_path(sys.argv[1])["apply"]
    print(applied(), applied())

    def declare(module):
        kind = dataclasses.dataclass(type("Default", (), {"__module__": module}))
        body = {"__module__": module, "__annotations__": {"x": kind}, "x": kind()}
        return dataclasses.dataclass(frozen=True)(type("Holder", (), body))

    holder = declare("lava.somewhere")
    print(holder() == holder(), dataclasses.fields(holder)[0].name)
    for module in ("lavatory.somewhere", "other"):
        try:
            declare(module)
            print("admitted")
        except ValueError as error:
            print("refused")
    try:
        dataclasses.dataclass(type("Lists", (), {"__module__": "lava.x", "__annotations__": {"x": list}, "x": []}))
    except ValueError:
        print("lists stay refused")
""")


@pytest.mark.skipif(not repair.needed(), reason="before Python 3.11 dataclasses admits these defaults itself")
def test_admits_lavas_defaults_and_no_others() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", DEFAULTS, str(repair.__file__)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["True False", "True x", "refused", "refused", "lists stay refused"]


@pytest.mark.skipif(repair.needed(), reason="from Python 3.11 on there is something to repair")
def test_does_nothing_where_nothing_is_needed() -> None:
    assert repair.apply() is False


def test_mended_port_reshapes() -> None:
    class Port:
        shape, old_shape = (3, 2), (6,)

    repair.mend_reshape(Port)
    there = Port().get_transform_func_fwd()(np.arange(6))  # type: ignore[attr-defined]
    assert there.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert Port().get_transform_func_bwd()(there).tolist() == list(range(6))  # type: ignore[attr-defined]


@pytest.mark.lava
@pytest.mark.skipif(not repair.needed(), reason="Lava imports without repair here")
@pytest.mark.usefixtures("lava")
def test_lava_really_needs_it() -> None:
    """If this fails, Lava or Python changed and the repair can go."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import lava.magma.compiler.compiler"], capture_output=True, text=True, check=False
    )
    assert "mutable default" in done.stderr
