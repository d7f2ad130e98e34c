"""How many system calls a relay makes: at the start, while bytes flow, and while the receiver has stopped."""

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

START, FLOW, SETTLE, HALT, AFTER = 3, 5, 2, 5, 3  # seconds: START, FLOW and HALT are counted
SPARE = 0.5  # for strace to begin and end
PHASES = {'starting': f'the first {START - SPARE:g} s', 'flowing': f'then, {FLOW - SPARE:g} s', 'stopped': f'stopped, {HALT - SPARE:g} s'}
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
        receiver = net['h3'].popen([measure.PYTHON, measure.PROBE, 'halt', str(PORT), str(START + FLOW), str(SETTLE + HALT), str(AFTER)], text=True)
        stack.callback(relay.end, receiver)
        relay.wait_listen(receiver, receiver.pid, PORT, 'probe.py halt')
        sender = net['h1'].popen([measure.PYTHON, measure.PROBE, 'send', address, str(port), str(START + FLOW + SETTLE + HALT + AFTER + 1)], text=True)
        stack.callback(relay.end, sender)
        starting = count(process.pid, START - SPARE)
        time.sleep(SPARE)
        flowing = count(process.pid, FLOW - SPARE)
        stop = _line(receiver)
        time.sleep(SETTLE)
        before = relay.status(process.pid)
        stopped = count(process.pid, HALT - SPARE)
        after = relay.status(process.pid)
        _line(receiver)
        end = _line(receiver)
        relay.end(sender)
        return {'starting': starting, 'flowing': flowing, 'stopped': stopped, 'growth': max(after['VmRSS'] - before['VmRSS'], 0),
                'read': stop['read'], 'read_at_end': end['read'], 'packets': packets.parse(lines(), H1)}


def _line(process):
    line = process.stdout.readline()
    if not line:
        raise LabError(f'probe.py halt: {process.stderr.read().strip() or "it ended"}')
    return json.loads(line)


def kinds(calls):
    """The calls by what they are for."""
    out = {'wait': 0, 'control': 0, 'move': 0, 'option': 0, 'other': 0}
    for call, number in calls.items():
        out[KINDS.get(call, 'other')] += number
    return out


def table(counted):
    """The table of calls by kind, in Markdown."""
    lines = ['| relay | while | waits | epoll_ctl | reads and writes | socket options | its runtime | grew by |',
             '| --- | --- | --: | --: | --: | --: | --: | --: |']
    for name, seen in counted.items():
        for phase, title in PHASES.items():
            number = kinds(seen[phase])
            growth = f'{seen["growth"] / (1 << 20):.1f} MiB' if phase == 'stopped' else ''
            lines.append(f'| {NAMES[name]} | {title} | {number["wait"]:,} | {number["control"]:,} | {number["move"]:,} | '
                         f'{number["option"]:,} | {number["other"]:,} | {growth} |')
    lines += ['', f'By strace -c -f. "Stopped": the receiver reads nothing; the first {SETTLE} s of that are left out. "Its runtime" is what neither '
              "waits nor moves bytes: the Go scheduler's futex and nanosleep, HAProxy's clock."]
    return '\n'.join(lines)


KINDS = {'epoll_ctl': 'control', 'getsockopt': 'option', 'setsockopt': 'option',
         **dict.fromkeys(('epoll_wait', 'epoll_pwait', 'epoll_pwait2', 'poll', 'ppoll', 'select', 'pselect6'), 'wait'),
         **dict.fromkeys(('splice', 'read', 'write', 'recvfrom', 'sendto', 'recvmsg', 'sendmsg', 'readv', 'writev', 'tee'), 'move')}
NAMES = {'tprelay': 'tprelay', 'haproxy': 'HAProxy', 'gnet': 'relay on gnet, which cannot pause',
         'level-remove': 'level-triggered, tells epoll', 'level-keep': 'level-triggered, does not'}
