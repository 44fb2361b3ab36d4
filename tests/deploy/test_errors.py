"""Errors fit a screen, keep their parts across processes, and each kind leaves with a code of its own kind."""

from __future__ import annotations

import copy
import pickle

import pytest

from deploy import errors
from deploy.errors import NeurokdError, RuleError


def kinds() -> list[type[NeurokdError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NeurokdError)]
    assert len(found) > 15
    return found


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_says_what_where_got_allowed_and_next(kind: type[NeurokdError]) -> None:
    error = kind("a thing is wrong", where="node 'a'", got=3, allowed=(1, 2), next_step="do that")
    assert error.render().splitlines() == [
        f"error:   {kind.title}",
        "what:    a thing is wrong",
        "where:   node 'a'",
        "got:     3",
        "allowed: (1, 2)",
        "next:    do that",
    ]
    assert str(error) == "a thing is wrong (where: node 'a'; got: 3; allowed: (1, 2); next: do that)"
    assert error.fields()["error"] == kind.title
    assert 2 <= kind.exit_code < 64
    assert kind.__doc__


def test_parts_that_are_not_set_are_left_out() -> None:
    assert str(NeurokdError("broken")) == "broken"
    assert NeurokdError("broken", got=0).render() == "error:   error\nwhat:    broken\ngot:     0"


@pytest.mark.parametrize("kind", kinds())
def test_errors_cross_process_boundaries(kind: type[NeurokdError]) -> None:
    error = kind("broken", where="here", got=1, allowed=2, next_step="mend")
    error.add_note("a note") if hasattr(error, "add_note") else None
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert (other.fields(), other.args, str(other)) == (error.fields(), error.args, str(error))
        assert other.__dict__ == error.__dict__


def test_titles_tell_kinds_apart() -> None:
    titles = [kind.title for kind in kinds()]
    assert len(set(titles)) == len(titles)
    assert RuleError.exit_code not in {
        NeurokdError.exit_code,
        errors.GraphError.exit_code,
        errors.VerifyError.exit_code,
    }
