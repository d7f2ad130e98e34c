"""How many system calls a relay makes, while bytes flow and while the receiver has stopped."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import measure
import relay
import packets
from lab import H1, H2_LEFT, H3, LabError

START, FLOW, HALT, AFTER = 3, 5, 5, 3  # seconds; counted are the second and the third
PORT = relay.SERVER_PORT + 2

_ROW = re.compile(r'^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z]\w*)$')


def parse(text):
    """The calls by name in a summary of strace -c."""
    rows = (_ROW.match(line) for line in text.splitlines())
    return {row[2]: int(row[1]) for row in rows if row and row[2] != 'total'}


def count(pid, seconds):
    """The calls of a process and its threads for so long, by name."""
    if not shutil.which('strace'):
        raise LabError('strace is missing; as root: apt-get install strace')
    with subprocess.Popen(['strace', '-c', '-f', '-q', '-p', str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        return parse(process.communicate(timeout=20)[1])


def relays(args):
    """Who is counted: a name, what to run on h2, and whether clients connect to the relay itself."""
    level = f'{sys.executable} {measure.PROBE.replace("probe.py", "level.py")} {{port}} {H3} {PORT}'
    gnet = f'{args.tpbench} peer gnet --forward {H2_LEFT}:{{port}}={H3}:{PORT}'
    return [('tprelay', 'tprelay', False), ('haproxy', 'haproxy', False),
            ('gnet', gnet, True), ('level-remove', level + ' remove', True), ('level-keep', level + ' keep', True)]


def halted(net, args, what, forward):
    """One transfer with a receiver that stops: the calls of both times, and the relay's memory before and after.

    The packets are those of the sender's host.
    """
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(relay.relay(net['h2'], what, args))
        address, port = (H2_LEFT, relay.PORT) if forward else (H3, PORT)
        lines = stack.enter_context(packets.capture(net['h1'], port))
        receiver = net['h3'].popen([measure.PYTHON, measure.PROBE, 'halt', str(PORT), str(START + FLOW), str(HALT), str(AFTER)], text=True)
        stack.callback(relay.end, receiver)
        relay.wait_listen(receiver, receiver.pid, PORT, 'probe.py halt')
        sender = net['h1'].popen([measure.PYTHON, measure.PROBE, 'send', address, str(port), str(START + FLOW + HALT + AFTER + 1)], text=True)
        stack.callback(relay.end, sender)
        time.sleep(START)
        flowing = count(process.pid, FLOW - 0.5)
        stop = _line(receiver)
        before = relay.status(process.pid)
        stopped = count(process.pid, HALT)
        after = relay.status(process.pid)
        _line(receiver)
        end = _line(receiver)
        relay.end(sender)
        return {'flowing': flowing, 'stopped': stopped, 'growth': max(after['VmRSS'] - before['VmRSS'], 0),
                'read': stop['read'], 'read_at_end': end['read'], 'packets': packets.parse(lines(), H1)}


def _line(process):
    line = process.stdout.readline()
    if not line:
        raise LabError(f'probe.py halt: {process.stderr.read().strip() or "it ended"}')
    return json.loads(line)


def total(calls):
    """All of them."""
    return sum(calls.values())


def table(counted):
    """The table of calls by name, in Markdown. What is waiting and what is epoll's upkeep has a column."""
    lines = ['| relay | while | all calls | epoll_wait and its like | epoll_ctl | reads and writes | other | growth |', '| --- | --- | --: | --: | --: | --: | --: | --: |']
    for name, seen in counted.items():
        for phase, title in (('flowing', f'bytes flow, {FLOW - 0.5:g} s'), ('stopped', f'the receiver has stopped, {HALT} s')):
            calls = seen[phase]
            waits = sum(n for call, n in calls.items() if call.startswith('epoll_') and call not in ('epoll_ctl',))
            moves = sum(n for call, n in calls.items() if call in MOVES)
            control = calls.get('epoll_ctl', 0)
            growth = f'{seen["growth"] / (1 << 20):.1f} MiB' if phase == 'stopped' else ''
            lines.append(f'| {NAMES[name]} | {title} | {total(calls):,} | {waits:,} | {control:,} | {moves:,} | '
                         f'{total(calls) - waits - control - moves:,} | {growth} |')
    return '\n'.join(lines)


MOVES = ('splice', 'read', 'write', 'recvfrom', 'sendto', 'recvmsg', 'sendmsg', 'readv', 'writev', 'tee')
NAMES = {'tprelay': 'tprelay', 'haproxy': 'HAProxy', 'gnet': 'relay on gnet, which cannot pause',
         'level-remove': 'level.py, which tells epoll', 'level-keep': 'level.py, which does not'}
