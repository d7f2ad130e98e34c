"""Tests of what is made of the runs."""

import json
import unittest

import figures
import settings


def steady(bits_per_second, seconds, start=0.0):
    """Intervals of 100 ms at a rate."""
    count = round(seconds * 10)
    return [[start + n / 10, start + (n + 1) / 10, bits_per_second / 80] for n in range(count)]


class Figures(unittest.TestCase):
    """Rates, and what is on the way."""

    def test_the_start_does_not_count(self):
        """A burst in the first two seconds leaves the rate as it is."""
        self.assertAlmostEqual(figures.mean_rate(steady(20e6, 2) + steady(6e6, 8, 2.0)), 6e6)
        self.assertEqual(figures.mean_rate([]), 0)

    def test_settled_is_when_the_rate_stays(self):
        """A rate that falls through the target on its way down is not there yet."""
        self.assertEqual(figures.settled(steady(6e6, 10), 6e6), 0)
        self.assertAlmostEqual(figures.settled(steady(20e6, 1) + steady(6e6, 9, 1.0), 6e6), 1, 6)
        self.assertIsNone(figures.settled(steady(20e6, 10), 6e6))
        self.assertIsNone(figures.settled(steady(20e6, 2) + steady(6e6, 2, 2.0) + steady(0, 6, 4.0), 6e6))

    def test_swallowed_is_the_most_on_the_way(self):
        """A second at 14 Mbit/s too much, then level."""
        self.assertAlmostEqual(figures.swallowed(steady(20e6, 1) + steady(6e6, 4, 1.0), steady(6e6, 5)), 14e6 / 8, 0)

    def test_a_run_that_never_got_there_misses(self):
        """Medians with a missing value are missing, and the line says so."""
        self.assertIsNone(figures.median([1, None, 2]))
        row = figures.row('settle', 'settled', '<= 2 s', None, lambda v: v <= 2, '0.0 s')
        self.assertEqual((row['ok'], row['measured']), (False, 'never'))


class Works(unittest.TestCase):
    """The check that depends on no figure."""

    def test_control_must_exceed_the_others(self):
        """And something must arrive."""
        run = {'sent': 6e6, 'arrived': 6e6}
        self.assertEqual(figures.broken([{'direct': run, 'relay': run, 'control': {'sent': 19e6, 'arrived': 6e6}}]), [])
        self.assertEqual(len(figures.broken([{'direct': run, 'relay': run, 'control': run}])), 1)
        self.assertEqual(len(figures.broken([{'direct': run, 'relay': {'sent': 6e6, 'arrived': 0}}])), 1)


class Table(unittest.TestCase):
    """The lines, and which hold."""

    def test_names_what_missed(self):
        """A relay like direct holds; one that adds 300 ms does not."""
        direct = {'sent': 5.7e6, 'arrived': 5.7e6, 'ratio': 1.0, 'settled': 0.5, 'swallowed': 10**5, 'delay': 0.1, 'believed': 1.0}
        relay = {**direct, 'delay': 0.4, 'pending': 1000, 'growth': 0}
        rows = figures.table([{'direct': direct, 'relay': relay}], settings.parse([]), {'flows': 200, 'growth': 10**6})
        self.assertEqual([r['key'] for r in rows], ['ratio', 'settle', 'throughput', 'delay', 'swallowed', 'pending', 'memory', 'flows'])
        self.assertEqual([r['key'] for r in rows if not r['ok']], ['delay'])
        self.assertEqual(figures.render(rows).count('MISSED'), 1)
        json.dumps(rows)


if __name__ == '__main__':
    unittest.main()
