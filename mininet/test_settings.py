"""Tests of the command line and of the arithmetic of links. They need neither root nor Mininet."""

import contextlib
import io
import os
import subprocess
import sys
import unittest

import settings


class Parsing(unittest.TestCase):
    """What the command line takes, and what it refuses."""

    def refused(self, *argv):
        """Parses what must be refused, and gives what is said about it."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as ended:
            settings.parse(list(argv))
        self.assertEqual(ended.exception.code, 2)
        return said.getvalue()

    def test_defaults_are_the_bottleneck_topology(self):
        """20/20/6 Mbit/s, 10 ms, 90 ms of queue, ten times that elsewhere."""
        args = settings.parse([])
        self.assertEqual((args.access, args.bottleneck), (20e6, 6e6))
        self.assertEqual((args.delay, args.queue, args.queue_factor), (0.01, 0.09, 10))
        self.assertEqual((args.relay, args.mode, args.traffic, args.switch), ('tprelay', 'tproxy', 'iperf3', 'auto'))
        self.assertEqual((args.seconds, args.rounds, args.flows, args.high_watermark), (20, 3, 200, 1 << 20))
        self.assertIsNone(args.check)

    def test_units(self):
        """Rates, durations and sizes have the units that tc and tprelay take."""
        self.assertEqual([settings.rate(t) for t in ('6mbit', '6', '512kbit', '1Gbit')], [6e6, 6e6, 512e3, 1e9])
        self.assertEqual([settings.duration(t) for t in ('1.5s', '2', '0')], [1.5, 2, 0])
        self.assertAlmostEqual(settings.duration('90ms'), 0.09)
        self.assertEqual([settings.size(t) for t in ('256KiB', '1mb', '4096')], [262144, 10**6, 4096])

    def test_bad_values_are_named(self):
        """A bad value ends the program with 2 and one line that names flag and value."""
        for flag, value in (('--access', 'fast'), ('--access', '2gbit'), ('--bottleneck', '-6'), ('--delay', '10mm'),
                            ('--delay', '2000s'), ('--seconds', '3'), ('--rounds', '0'), ('--flows', 'x'), ('--mode', 'nat'),
                            ('--high-watermark', '1PiB'), ('--check', 'speed')):
            with self.subTest(flag=flag, value=value):
                said = self.refused(f'{flag}={value}')
                self.assertIn(flag, said)
                self.assertIn(value, said)

    def test_what_does_not_go_together_is_refused(self):
        """A bottleneck that is none, no queue, and a factor of nothing."""
        self.assertIn('--bottleneck', self.refused('--bottleneck', '20mbit'))
        self.assertIn('--queue', self.refused('--queue', '0'))
        self.assertIn('--queue-factor', self.refused('--queue-factor', '0'))

    def test_check_takes_all_some_or_that_it_works(self):
        """--check alone means all figures of the table."""
        self.assertEqual(settings.parse(['--check']).check, list(settings.KEYS))
        self.assertEqual(settings.parse(['--check', 'ratio,delay']).check, ['ratio', 'delay'])
        self.assertEqual(settings.parse(['--check', 'works']).check, ['works'])

    def test_help_needs_neither_root_nor_mininet(self):
        """Mininet is imported only when a network is built."""
        topo = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'topo.py')
        done = subprocess.run([sys.executable, '-S', topo, '--help'], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('--arp-proxy', done.stdout)


class Queues(unittest.TestCase):
    """How long a queue is."""

    def test_bytes_pass_in_the_time_asked_for(self):
        """6 Mbit/s for 90 ms are 67,500 bytes; a slow link still queues ten packets."""
        self.assertEqual(settings.queue_bytes(6e6, 0.09), 67500)
        self.assertEqual(settings.queue_bytes(64e3, 0.09), 10 * settings.FRAME)

    def test_packets_are_rounded_up(self):
        """A part of a packet takes a place."""
        self.assertEqual([settings.packets(n) for n in (0, 1, 1514, 1515, 67500)], [0, 1, 1, 2, 45])

    def test_without_netem_the_token_bucket_holds_the_bytes(self):
        """Latency is the queue's time to pass this link."""
        before, behind = settings.links(settings.parse([]), netem=False)
        self.assertAlmostEqual(behind['latency_ms'], 90)
        self.assertAlmostEqual(before['latency_ms'], 270)  # ten times the bytes, at 20 Mbit/s
        self.assertNotIn('delay', behind)
        self.assertNotIn('max_queue_size', behind)

    def test_with_netem_packets_on_their_way_are_added(self):
        """netem's limit counts those that it delays too."""
        before, behind = settings.links(settings.parse([]), netem=True)
        self.assertEqual((before['bw'], behind['bw'], behind['delay']), (20, 6, '10000us'))
        self.assertEqual(behind['max_queue_size'], 45 + 5)    # 67,500 bytes, and 7,500 on their way
        self.assertEqual(before['max_queue_size'], 446 + 17)  # 675,000 bytes, and 25,000

    def test_goodput_leaves_headers_out(self):
        """What TCP delivers of 6 Mbit/s."""
        self.assertAlmostEqual(settings.goodput(6e6) / 1e6, 5.738, 3)


if __name__ == '__main__':
    unittest.main()
