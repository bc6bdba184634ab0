import gc

from deployments.memory import settle


def test_what_is_there_is_not_looked_at_again():
    """Collections pass over it, and still find what is made later."""
    gc.unfreeze()
    settle()
    try:
        assert gc.get_freeze_count() > 10_000
        later = []
        later.append(later)
        del later
        assert gc.collect() > 0
    finally:
        gc.unfreeze()
