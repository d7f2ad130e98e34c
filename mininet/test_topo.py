"""Tests of topo.py that need Mininet's classes but not root."""

import contextlib
import io
import os
import subprocess
import sys
import unittest
from unittest import mock

import topo


class Links(unittest.TestCase):
    """Rates, delays and queues."""

    def test_without_netem_the_token_bucket_holds_the_bytes(self):
        """Its latency is the queue's time to pass this link."""
        behind = topo.link_options(6, 10, 67500, netem=False)
        self.assertAlmostEqual(behind['latency_ms'], 90)
        self.assertAlmostEqual(topo.link_options(20, 10, 675000, netem=False)['latency_ms'], 270)
        self.assertNotIn('delay', behind)
        self.assertNotIn('max_queue_size', behind)

    def test_with_netem_delayed_packets_are_added(self):
        """netem's limit counts the packets that it delays as well."""
        behind, before = topo.link_options(
            6, 10, 67500, netem=True), topo.link_options(
            20, 10, 675000, netem=True)
        self.assertEqual((behind['bw'], behind['delay'],
                         behind['max_queue_size']), (6, '10000us', 45 + 5))
        self.assertEqual(
            (before['bw'],
             before['delay'],
                before['max_queue_size']),
            (20,
             '10000us',
             446 + 17))
        self.assertNotIn('delay', topo.link_options(6, 0, 67500, netem=True))


class Network(unittest.TestCase):
    """The topology, without building it."""

    def build(self, **parameters):
        """The topology on a kernel with netem."""
        with mock.patch.multiple(topo, has_netem=lambda: True, has_openvswitch=lambda: False):
            return topo.topos['bottleneck'](**parameters)

    def test_defaults_are_h1_s1_h2_h3(self):
        """20, 20 and 6 Mbit/s, 10 ms, a queue of 90 ms and ten times that elsewhere."""
        seen = self.build()
        self.assertEqual((sorted(seen.hosts()), seen.switches()), (['h1', 'h2', 'h3'], ['s1']))
        links = {(one, two): info for one, two, info in seen.links(withInfo=True)}
        self.assertEqual({ends: info['bw'] for ends, info in links.items()}, {
                         ('h1', 's1'): 20, ('s1', 'h2'): 20, ('h2', 'h3'): 6})
        self.assertEqual([info['max_queue_size'] for info in links.values()].count(45 + 5), 1)
        self.assertEqual(seen.nodeInfo('h2')['cls'], topo.Router)

    def test_parameters_change_it(self):
        """mn passes numbers: --topo bottleneck,relay=1,access=50."""
        seen = self.build(relay=1, access=50, arp_proxy=1, mode='redirect')
        self.assertEqual((seen.nodeInfo('h2')['cls'], seen.nodeInfo('h2')[
                         'mode']), (topo.TPRelayHost, 'redirect'))
        self.assertEqual(seen.linkInfo('h1', 's1')['bw'], 50)
        self.assertEqual(seen.nodeInfo('h1')['defaultRoute'], 'via ' + topo.NOBODY)

    def test_slow_links_still_queue_ten_packets(self):
        """A queue of a packet would measure the queue."""
        self.assertEqual(
            self.build(
                bottleneck=0.064,
                delay=0).linkInfo(
                'h2',
                'h3')['max_queue_size'],
            10)


class CommandLine(unittest.TestCase):
    """What topo.py takes, and what it passes on to tpbench."""

    def refused(self, *argv):
        """Parses what must be refused, and gives what is said about it."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as ended:
            topo.parse(list(argv))
        self.assertEqual(ended.exception.code, 2)
        return said.getvalue()

    def test_bad_values_are_named(self):
        """One line names the flag."""
        for argv in (['--access', 'fast'], ['--bottleneck', '20'], ['--queue', '0'],
                     ['--factor', '0'], ['--delay', '-1'], ['--mode', 'nat']):
            self.assertIn(argv[0], self.refused(*argv))

    def measuring(self, *argv):
        """The command for these arguments, on a kernel without netem."""
        args, rest = topo.parse(list(argv))
        with mock.patch.multiple(topo, has_netem=lambda: False, program=lambda name: name):
            return topo.tpbench(args, rest, [11, 22, 33])

    def test_tpbench_is_attached_to_the_hosts(self):
        """And told what the links are."""
        line = ' '.join(self.measuring())
        self.assertTrue(line.startswith('tpbench slow --attach 11,22,33 '))
        self.assertIn('--bottleneck 6.000000mbit --queue 90ms --delay 0ms', line)
        self.assertIn('--ordinary --goals --mode tproxy', line)

    def test_its_flags_replace_the_defaults(self):
        """kong would add to a list that is given twice."""
        line = ' '.join(
            self.measuring(
                '--rounds',
                '1',
                '--relays=direct,haproxy',
                '--check',
                'works'))
        self.assertEqual((line.count('--rounds'), line.count('--relays')), (1, 1))
        self.assertTrue(line.endswith('--rounds 1 --relays=direct,haproxy --check works'))
        self.assertNotIn('--crowd', ' '.join(self.measuring('--document')))

    def test_mn_finds_the_topology(self):
        """mn runs the file with no name and no path, and takes over what it defines."""
        path = topo.__file__
        with open(path, encoding='utf-8') as source:
            code = compile(source.read(), path, 'exec')
        customs = {}
        exec(code, customs, customs)  # pylint: disable=exec-used
        self.assertEqual(list(customs['topos']), ['bottleneck'])

    def test_without_root_it_says_what_to_do(self):
        """In one line, and with status 1."""
        code = 'import sys, topo; topo.os.geteuid = lambda: 1; sys.exit(topo.main([]))'
        done = subprocess.run([sys.executable, '-B', '-c', code], capture_output=True, text=True,
                              check=False, cwd=os.path.dirname(os.path.abspath(topo.__file__)))
        self.assertEqual((done.returncode, done.stderr.count('\n')), (1, 1))
        self.assertIn('needs root', done.stderr)


if __name__ == '__main__':
    unittest.main()
