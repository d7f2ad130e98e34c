"""The command line of topo.py, and the arithmetic of its links.

Needs neither root nor Mininet.
"""

import argparse
import os
import re
import sys

FRAME = 1514     # bytes of a full packet with its Ethernet header: what links count
PAYLOAD = 1448   # bytes of it that TCP delivers
KEYS = ('ratio', 'settle', 'throughput', 'delay', 'swallowed', 'pending', 'memory', 'flows', 'control')

_UNITS = {'bit': 1, 'kbit': 10**3, 'mbit': 10**6, 'gbit': 10**9}
_SIZES = {'': 1, 'b': 1, 'kib': 1 << 10, 'mib': 1 << 20, 'gib': 1 << 30, 'kb': 10**3, 'mb': 10**6, 'gb': 10**9}


def _number(text, units, example):
    found = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*', text.lower())
    if not found or found.group(2) not in units:
        raise argparse.ArgumentTypeError(f'"{text}": want a number with a unit, such as {example}')
    return float(found.group(1)) * units[found.group(2)]


def rate(text):
    """A rate in bit/s: 20mbit, 512kbit, or a number of Mbit/s. Mininet's links go from 8 kbit/s to 1 Gbit/s."""
    value = _number(text, {**_UNITS, '': 10**6}, '20mbit')
    if not 8e3 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f'"{text}": want 8kbit to 1gbit')
    return value


def duration(text):
    """A duration in seconds: 90ms, 1.5s; a number alone is seconds."""
    value = _number(text, {'us': 1e-6, 'ms': 1e-3, 's': 1.0, '': 1.0}, '10ms')
    if value > 60:
        raise argparse.ArgumentTypeError(f'"{text}": want at most 60s')
    return value


def size(text):
    """A number of bytes: 256KiB, 1mb, 4096."""
    return int(_number(text, _SIZES, '256KiB'))


def _bounded(least, most):
    def number(text):
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f'"{text}": want a whole number from {least} to {most}')
        return value
    return number


def _figures(text):
    wanted = [w for w in text.split(',') if w]
    unknown = [w for w in wanted if w not in KEYS + ('all', 'works')]
    if unknown or not wanted:
        raise argparse.ArgumentTypeError(f'"{text}": want all, works, or some of {",".join(KEYS)}')
    return list(KEYS) if 'all' in wanted else wanted


def queue_bytes(bits_per_second, seconds):
    """What waits in a queue that takes so long to pass, in bytes, and at least ten full packets."""
    return max(int(bits_per_second / 8 * seconds), 10 * FRAME)


def packets(count):
    """How many full packets so many bytes are, rounded up."""
    return -(-int(count) // FRAME)


def goodput(bits_per_second):
    """What TCP delivers of a link's rate, in bit/s."""
    return bits_per_second * PAYLOAD / FRAME


def link(bits_per_second, delay, queue, netem):
    """How TCLink is to treat a link, as its keyword arguments.

    The queue is in bytes. With netem, rate limit and delay share one queue that counts packets, so
    those under way are added. Without, a token bucket holds exactly the bytes, and there is no delay.
    """
    options = {'bw': bits_per_second / 1e6, 'use_tbf': True}
    if netem and delay > 0:
        options['delay'] = f'{delay * 1e6:.0f}us'
        options['max_queue_size'] = packets(queue) + packets(bits_per_second / 8 * delay)
    elif netem:
        options['max_queue_size'] = packets(queue)
    else:
        options['latency_ms'] = queue * 8e3 / bits_per_second
    return options


def links(args, netem):
    """The options of the links before the relay, and of the one behind it."""
    queue = queue_bytes(args.bottleneck, args.queue)
    return (link(args.access, args.delay, int(queue * args.queue_factor), netem),
            link(args.bottleneck, args.delay, queue, netem))


def parser():
    """The command line."""
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(
        prog='topo.py', formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description='Measures a relay on h2 of h1 -s1- h2 -- h3, where the link behind it is the bottleneck. As root.')
    p.add_argument('--relay', default='tprelay', metavar='WHAT',
                   help='tprelay, tprelay-no-flow-control, haproxy, none, or a command to run on h2, which may hold '
                        '{port}, {server} and {mode}')
    p.add_argument('--mode', choices=('tproxy', 'redirect'), default='tproxy', help='how connections come to the relay')
    p.add_argument('--traffic', choices=('iperf3', 'tpbench'), default='iperf3', help='who sends')
    p.add_argument('--seconds', type=_bounded(4, 600), default=20, metavar='N', help='length of each run')
    p.add_argument('--rounds', type=_bounded(1, 99), default=3, metavar='N', help='how often; the table has medians')
    p.add_argument('--flows', type=_bounded(0, 1000), default=200, metavar='N',
                   help='connections of the one run that shows the memory of many; 0: none')
    p.add_argument('--no-control', action='store_true', help='leave out the runs without flow control')
    net = p.add_argument_group('the network')
    net.add_argument('--access', type=rate, default='20mbit', metavar='RATE', help='links h1-s1 and s1-h2')
    net.add_argument('--bottleneck', type=rate, default='6mbit', metavar='RATE', help='link h2-h3')
    net.add_argument('--delay', type=duration, default='10ms', metavar='TIME', help='of each link, one way')
    net.add_argument('--queue', type=duration, default='90ms', metavar='TIME', help='of the bottleneck, as the time to pass it')
    net.add_argument('--queue-factor', type=float, default=10, metavar='N', help='the other queues are so many times longer, in bytes')
    net.add_argument('--switch', choices=('auto', 'ovs', 'bridge'), default='auto', help='Open vSwitch or Linux bridge')
    net.add_argument('--arp-proxy', action='store_true',
                     help='h1 keeps a default gateway that is not h2, and h2 answers for it')
    relay = p.add_argument_group('the relay')
    relay.add_argument('--tprelay', default=os.path.join(here, '../bin/tprelay'), metavar='PATH', help='the relay, and its rules')
    relay.add_argument('--tpbench', default=os.path.join(here, '../bin/tpbench'), metavar='PATH', help='for tpbench traffic and --flows')
    relay.add_argument('--high-watermark', type=size, default='1MiB', metavar='SIZE', help='of tprelay')
    relay.add_argument('--relay-flags', default='', metavar='FLAGS', help='more flags for tprelay run')
    out = p.add_argument_group('what comes of it')
    out.add_argument('--cli', action='store_true', help="Mininet's prompt, with the relay running, instead of measuring")
    out.add_argument('--json', action='store_true', help='print JSON instead of the table')
    out.add_argument('--save', metavar='FILE', help='write the JSON there as well')
    out.add_argument('--plot', metavar='DIR', help='write plots there (needs matplotlib)')
    out.add_argument('--check', nargs='?', const='all', type=_figures, default=None, metavar='FIGURES',
                     help=f'exit with 1 if a figure misses what it must be: all, or some of {",".join(KEYS)}; works: only if '
                          'nothing came through, or the sender was not faster without flow control')
    return p


def parse(argv=None):
    """The settings; bad ones end the program with 2."""
    p = parser()
    args = p.parse_args(sys.argv[1:] if argv is None else argv)
    if args.check == 'all':
        args.check = list(KEYS)
    if args.bottleneck >= args.access:
        p.error('--bottleneck: must be less than --access, or there is nothing to see')
    if not 0 < args.queue_factor <= 1000:
        p.error('--queue-factor: want more than 0 and at most 1000')
    if args.queue <= 0:
        p.error('--queue: want more than 0')
    return args
