"""The packets of one connection, as tcpdump sees them on the sender's host."""

import collections
import contextlib
import os
import re
import subprocess
import tempfile
import time

import relay
from lab import LabError

# A packet: when, whether the sender sent it, first byte (data) or what is acknowledged, bytes, and the
# window that it announces, in bytes.
Packet = collections.namedtuple('Packet', 'time sent seq ack length window')

_LINE = re.compile(r'^(?P<time>\d+\.\d+) IP (?P<src>\S+) > (?P<dst>[^:\s]+): Flags \[(?P<flags>[^\]]*)\]'
                   r'(?:, seq (?P<seq>\d+)(?::\d+)?)?(?:, ack (?P<ack>\d+))?(?:, win (?P<win>\d+))?'
                   r'(?P<rest>.*?), length (?P<length>\d+)')
_SCALE = re.compile(r'wscale (\d+)')


def parse(lines, sender):
    """The packets of the connection with most of them; sender is the address of the host that sends.

    Lines are those of tcpdump -n -tt, which counts from the first byte of a connection by itself.
    """
    connections, scales = collections.defaultdict(list), {}
    for line in lines:
        found = _LINE.match(line)
        if not found:
            continue
        src, dst = found['src'], found['dst']
        if 'S' in found['flags']:
            scale = _SCALE.search(found['rest'])
            scales[src, dst] = int(scale[1]) if scale else 0
            continue
        if found['win'] is None:
            continue
        sent = src.rpartition('.')[0] == sender
        name = (src, dst) if sent else (dst, src)
        connections[name].append(Packet(float(found['time']), sent, int(found['seq'] or 0), int(found['ack'] or 0), int(found['length']),
                                        int(found['win']) << scales.get((src, dst), 0)))
    if not connections:
        return []
    packets = max(connections.values(), key=lambda some: sum(p.length for p in some))
    start = packets[0].time
    return [p._replace(time=p.time - start) for p in packets]


def windows(packets, step=0.05):
    """The windows that the receiver announces, as lists of times and of the smallest window in each step."""
    least = {}
    for p in packets:
        if not p.sent:
            n = round(p.time / step)
            least[n] = min(p.window, least.get(n, p.window))
    return [round(n * step, 3) for n in sorted(least)], [least[n] for n in sorted(least)]


def excerpt(packets, start=0):
    """The lines that show how the window closes and opens again: a text, or '' if there are no packets.

    That is the longest time with the smallest window after so many seconds, what came before, and what
    ended it.
    """
    packets = [p for p in packets if p.time >= start]
    heard = [n for n, p in enumerate(packets) if not p.sent]
    if not heard:
        return ''
    low = min(packets[n].window for n in heard)
    closed, opened = max(_times(packets, heard, low), key=lambda span: packets[span[1]].time - packets[span[0]].time)
    chosen = _between(packets, closed - 6, closed + 3) + _between(packets, max(closed + 3, opened - 2), opened + 4)
    lines, last = [], None
    for n in sorted(set(chosen)):
        if last is not None and n > last + 1:
            probes = sum(p.sent and not p.length for p in packets[last + 1:n])
            lines.append('     ...' + (f' {probes} more probes' if probes else ''))
        lines.append(_shown(packets[n]))
        last = n
    return '\n'.join(lines)


def _times(packets, heard, window):
    """The spans in which the window was such, as the packets that began and ended them."""
    began = None
    for n in heard:
        if packets[n].window == window:
            began = n if began is None else began
        elif began is not None:
            yield began, n
            began = None
    if began is not None:
        yield began, heard[-1]


def _between(packets, first, end):
    return list(range(max(first, 0), min(end, len(packets))))


def _shown(p):
    if p.sent and not p.length:
        return f'{p.time:8.3f}  h1 > h3  no bytes'
    if p.sent:
        return f'{p.time:8.3f}  h1 > h3  seq {p.seq:>9}  {p.length:>6} bytes'
    return f'{p.time:8.3f}  h3 > h1  ack {p.ack:>9}                window {p.window:>8}'


@contextlib.contextmanager
def capture(host, port):
    """Writes down the headers of what host sends to and hears from the port; gives a function that reads them."""
    with tempfile.TemporaryDirectory(prefix='topo-') as folder:
        path = os.path.join(folder, 'trace.pcap')
        try:
            process = host.popen(['tcpdump', '-i', f'{host.name}-eth0', '-s', '100', '-B', '8192', '-Z', 'root', '-U', '-w', path,
                                  'tcp', 'port', str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        except FileNotFoundError as err:
            raise LabError('tcpdump is missing; as root: apt-get install tcpdump') from err
        try:
            wait_file(process, path)

            def lines():
                relay.end(process)
                return subprocess.run(['tcpdump', '-n', '-tt', '-r', path], capture_output=True, text=True, check=False).stdout.splitlines()
            yield lines
        finally:
            relay.end(process)


def wait_file(process, path):
    """Returns when the file has its header, and tcpdump listens."""
    for _ in range(200):
        if os.path.exists(path) and os.path.getsize(path) > 0:
            return
        if process.poll() is not None:
            raise LabError('tcpdump ended at once; is it installed? as root: apt-get install tcpdump')
        time.sleep(0.05)
    raise LabError('tcpdump does not begin')
