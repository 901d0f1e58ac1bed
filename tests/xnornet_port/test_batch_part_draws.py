"""Parts of a batch have together what one process draws for the whole."""

import numpy as np

from lua_compat.generator import Generator
from xnornet_port.batch_part_draws import BatchPartGenerator


def test_parts_together_are_the_whole_and_streams_stay_together() -> None:
    alone = Generator(5)
    parts = [BatchPartGenerator(5, 7, bounds) for bounds in ((0, 4), (4, 7))]
    for shape in ((3,), (3, 2, 2), ()):
        for name, arguments in (("fill_bernoulli", (0.7,)), ("fill_uniform", (-1.0, 1.0)), ("fill_normal", (0.0, 2.0))):
            whole = getattr(alone, name)(np.empty((7, *shape), np.float32), *arguments)
            found = [
                getattr(part, name)(np.empty((n, *shape), np.float32), *arguments)
                for part, n in zip(parts, (4, 3), strict=True)
            ]
            np.testing.assert_array_equal(np.concatenate(found), whole)
    assert parts[0].state == parts[1].state == alone.state


def test_what_is_not_of_the_batch_is_the_same_in_all() -> None:
    """One mask for all pictures, as nn.VolumetricDropout draws when it is told to."""
    alone, part = Generator(5), BatchPartGenerator(5, 7, (4, 7))
    np.testing.assert_array_equal(part.fill_bernoulli(np.empty((1, 9), np.float32), 0.5),
                                  alone.fill_bernoulli(np.empty((1, 9), np.float32), 0.5))  # fmt: skip
    assert part.uniform() == alone.uniform()
