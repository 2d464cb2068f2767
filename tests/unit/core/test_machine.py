"""What is done to the collector is undone."""

import gc

from tuneloop.core.machine import RARE_COLLECTIONS, rare_collector, without_collector


def test_the_collector_is_as_it_was_afterwards() -> None:
    before = gc.get_threshold()
    with rare_collector():
        assert gc.get_threshold() == RARE_COLLECTIONS
    assert gc.get_threshold() == before
    with without_collector():
        with without_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
