"""Tests of how a machine that is kept waiting is dealt with."""

import unittest
from unittest import mock

import steal

STAT = 'cpu  100 0 50 800 0 0 10 40 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n'


class Steal(unittest.TestCase):
    """The shares, and what they lead to."""

    def test_reads_the_line_of_all_processors(self):
        """Guest time is in user time already and does not count."""
        self.assertEqual(steal.parse(STAT), (40, 1000))
        self.assertAlmostEqual(steal.share((40, 1000), (90, 1500)), 0.1)
        self.assertEqual(steal.share((40, 1000), (40, 1000)), 0)

    def test_takes_a_run_again(self):
        """As often as allowed, and the calmest counts."""
        for times, runs, kept in (
                ([(0, 0), (0, 100)], 1, 0),
                ([(0, 0), (9, 100), (9, 100), (9, 200)], 2, 1),
                ([(0, 0), (9, 100), (9, 100), (12, 200), (12, 200), (20, 300)], 3, 1)):
            said, taken = [], iter(range(9))
            with mock.patch.object(steal, 'now', side_effect=times):
                best = steal.calm(lambda taken=taken: {'run': next(taken)}, 2, said.append)
            self.assertEqual((next(taken), best['run'], len(said)), (runs, kept, runs - 1))

    def test_warns_of_what_was_kept(self):
        """And only of that."""
        self.assertEqual(steal.warning([{'direct': {'stolen': 0.01}, 'relay': {}}]), '')
        self.assertIn('1 of 2 runs, at most 30 %', steal.warning([{'direct': {'stolen': 0.3}, 'relay': {'stolen': 0}}]))


if __name__ == '__main__':
    unittest.main()
