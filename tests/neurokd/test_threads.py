"""Small networks train on one thread, large ones on all."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from neurokd.spec import NetworkSpec  # noqa: E402
from neurokd.threads import suited_threads, work  # noqa: E402


def test_work_counts_the_first_layer_once() -> None:
    assert work(NetworkSpec.parse("784-128-10"), 8) == 784 * 128 + 8 * 128 * 10
    assert work(NetworkSpec.parse("8x8x2-4c3-10"), 5) == 2 * 9 * 4 * 36 + 5 * 4 * 36 * 10


@pytest.mark.parametrize(("spec", "shared"), [("64-512-10", False), ("784-800-10", True)])
def test_threads_follow_the_work_and_are_put_back(spec: str, shared: bool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with suited_threads(NetworkSpec.parse(spec), 128, 8) as chosen:
            assert chosen == torch.get_num_threads() == (2 if shared else 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
