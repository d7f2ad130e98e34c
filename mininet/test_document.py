"""Tests of what document.py makes of packets, calls and figures. They need neither root nor Mininet."""

import unittest

import calls
import document
import figures
import packets

LINES = '''1.000000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [S], seq 100, win 64240, options [mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7], length 0
1.010000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [S.], seq 900, ack 101, win 65160, options [mss 1460,nop,wscale 10], length 0
1.020000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [.], ack 1, win 502, options [nop], length 0
1.030000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [P.], seq 1:1449, ack 1, win 502, length 1448
1.040000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [.], ack 1449, win 63, length 0
1.050000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [P.], seq 1449:2897, ack 1, win 502, length 1448
1.060000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [.], ack 2897, win 0, length 0
1.260000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [.], ack 1, win 502, length 0
1.270000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [.], ack 2897, win 0, length 0
3.060000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [.], ack 2897, win 40, length 0
3.070000 IP 10.0.1.1.40002 > 10.0.2.3.5201: Flags [P.], seq 1:38, ack 1, win 502, length 37
3.080000 ARP, Request who-has 10.0.1.2 tell 10.0.1.1, length 28'''.splitlines()


class Packets(unittest.TestCase):
    """What is read of tcpdump."""

    def test_windows_are_scaled_and_the_largest_connection_counts(self):
        """Each side has its own scale, which its SYN tells; the small connection is left out."""
        seen = packets.parse(LINES, '10.0.1.1')
        self.assertEqual(len(seen), 8)
        self.assertEqual((seen[0].window, seen[0].sent, seen[0].time), (502 << 7, True, 0))
        self.assertEqual([p.window for p in seen if not p.sent], [63 << 10, 0, 0, 40 << 10])
        self.assertEqual((seen[1].seq, seen[1].length), (1, 1448))
        self.assertEqual(packets.parse([], '10.0.1.1'), [])

    def test_the_smallest_window_of_each_step_is_kept(self):
        """Of the three in the first quarter of a second, nothing."""
        times, values = packets.windows(packets.parse(LINES, '10.0.1.1'), 1)
        self.assertEqual((times, values), ([0, 2], [0, 40 << 10]))

    def test_the_excerpt_shows_it_closing_and_opening(self):
        """And leaves out what lies between."""
        text = packets.excerpt(packets.parse(LINES, '10.0.1.1'))
        self.assertIn(f'window {63 << 10:>8}', text)
        self.assertIn(f'window {0:>8}', text)
        self.assertTrue(text.splitlines()[-1].endswith(f'window {40 << 10:>8}'))
        self.assertEqual(packets.excerpt([]), '')

    def test_the_excerpt_is_of_the_longest_time(self):
        """A window that is closed for a moment is not the one to show."""
        text = packets.excerpt([packets.Packet(t, False, 0, 1, 0, window) for t, window in
                                ((1, 500), (2, 0), (3, 500), *((t, 600) for t in range(4, 20)), (20, 0), (30, 700))])
        self.assertNotIn('   2.000', text)
        self.assertIn('  20.000', text)

    def test_probes_that_are_left_out_are_counted(self):
        """Twenty with their answers: those at the edges are shown."""
        closed = [packets.Packet(n, n % 2 == 0, 0, 1, 0, 0 if n % 2 else 500) for n in range(1, 41)]
        text = packets.excerpt(closed + [packets.Packet(50, False, 0, 1, 0, 9000)])
        self.assertRegex(text, r'\.\.\. 1[78] more probes')


class Calls(unittest.TestCase):
    """What is read of strace."""

    def test_calls_with_and_without_errors(self):
        """The sum at the end is no call."""
        text = '''% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000102           5        19         3 epoll_wait
 40.00    0.000068           1        42           splice
100.00    0.000170           2        61         3 total'''
        seen = calls.parse(text)
        self.assertEqual(seen, {'epoll_wait': 19, 'splice': 42})
        self.assertEqual(calls.kinds({**seen, 'futex': 2}), {'wait': 19, 'control': 0, 'move': 42, 'option': 0, 'other': 2})

    def test_the_table_has_a_line_for_each_phase(self):
        """And the memory of the last."""
        text = calls.table({'haproxy': {'starting': {}, 'flowing': {'splice': 1200}, 'stopped': {}, 'growth': 1 << 20}})
        self.assertIn('| HAProxy | then, 4.5 s | 0 | 0 | 1,200 | 0 | 0 |  |', text)
        self.assertIn('| 0 | 1.0 MiB |', text)


class Page(unittest.TestCase):
    """What is written into the page."""

    def test_only_what_is_between_the_comments_is_replaced(self):
        """And again, with the same result."""
        text = 'a\n<!-- x: begin (by make) -->\nold\n<!-- x: end -->\nb\n'
        once = document.rewritten(text, 'x', r'new \1')
        self.assertEqual(once, 'a\n<!-- x: begin (by make) -->\n\nnew \\1\n\n<!-- x: end -->\nb\n')
        self.assertEqual(document.rewritten(once, 'x', r'new \1'), once)

    def test_missing_comments_are_told(self):
        """Nothing is written then."""
        with self.assertRaisesRegex(ValueError, 'y: begin'):
            document.rewritten('text', 'y', 'new')


class UnderWay(unittest.TestCase):
    """What was sent and has not arrived."""

    def test_sent_less_arrived(self):
        """At the end of each interval of the sender."""
        sent, arrived = [[0, 1, 100], [1, 2, 100]], [[0, 1, 30], [1, 2, 150]]
        self.assertEqual(figures.under_way(sent, arrived), [[1, 70], [2, 20]])
        self.assertEqual(figures.swallowed([], []), 0)


if __name__ == '__main__':
    unittest.main()
