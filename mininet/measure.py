"""The runs: who sends, and what is seen of it."""

import json
import os
import subprocess
import sys
import threading
import time

import figures
import relay
import steal
from lab import H3, LabError
from settings import goodput

PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'probe.py')
# How often a run is repeated because the machine had to wait for its host.
AGAIN = 2
PYTHON = sys.executable or 'python3'


def output(process, seconds, what):
    """What a process prints until it ends."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as late:
        raise LabError(f'{what} does not end') from late
    finally:
        relay.end(process)
    if process.returncode != 0:
        raise LabError(f'{what}: {(err.strip() or out.strip()[-200:] or process.returncode)}')
    return out


def parse_iperf3(text):
    """The intervals of a report of iperf3 -J, as [start, end, bytes]."""
    try:
        report = json.loads(text)
    except ValueError as err:
        raise LabError(f'iperf3: its report: {err}') from err
    if report.get('error'):
        raise LabError('iperf3: ' + report['error'])
    return [[i['sum']['start'], i['sum']['end'], i['sum']['bytes']] for i in report['intervals']]


def parse_tpbench(text):
    """The intervals in what tpbench --json prints, as [start, end, bytes]."""
    events = [json.loads(line) for line in text.splitlines() if line.startswith('{')]
    return [[e['start'], e['end'], e['bytes']] for e in events if e['event'] == 'interval']


def iperf3(net, args):
    """Sends by iperf3, and gives the intervals of both ends. Blocks of 8 KiB: larger ones make rates of 100 ms jump."""
    h1, h3 = net['h1'], net['h3']
    port = relay.SERVER_PORT
    server = h3.popen(['iperf3', '-s', '-1', '-J', '-i', '0.1', '-p', str(port)], text=True)
    try:
        relay.wait_listen(server, server.pid, port, 'iperf3')
        client = h1.popen(['iperf3', '-c', H3, '-p', str(port), '-t', str(args.seconds), '-i', '0.1', '-l', '8K', '-J'], text=True)
        sent = parse_iperf3(output(client, 3 * args.seconds + 60, 'iperf3'))
        return sent, parse_iperf3(output(server, 60, 'iperf3 -s'))
    finally:
        relay.end(server)


def tpbench(net, args, connections=1):
    """Sends by tpbench, and gives the intervals of both ends."""
    port = relay.SERVER_PORT + 1
    server = net['h3'].popen([args.tpbench, 'serve', f'0.0.0.0:{port}', '--json'], text=True)
    try:
        relay.wait_listen(server, server.pid, port, 'tpbench serve')
        load = net['h1'].popen([args.tpbench, 'load', f'{H3}:{port}', '--seconds', str(args.seconds), '--json', '--drain', '0s',
                                '--block', '8KiB', '--connections', str(connections)], text=True)
        sent = parse_tpbench(output(load, 3 * args.seconds + 60, 'tpbench load'))
        server.terminate()
        return sent, parse_tpbench(output(server, 60, 'tpbench serve'))
    finally:
        relay.end(server)


class Memory:
    """What a process occupies while this lasts, looked at ten times a second."""

    def __init__(self, pid):
        self.pid, self.start, self.samples = pid, relay.status(pid), []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = time.time()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while True:
            seen = relay.status(self.pid)
            if seen['VmRSS']:
                self.samples.append([round(time.time() - self._began, 3), seen['VmRSS'], seen['RssAnon']])
            if self._over.wait(0.1):
                return

    def figures(self):
        """By how much it grew, in bytes, beyond the start, and the samples."""
        if not self.samples:
            raise LabError('the relay ended during the run')
        return {'growth': max(max(s[1] for s in self.samples) - self.start['VmRSS'], 0),
                'growth_anonymous': max(max(s[2] for s in self.samples) - self.start['RssAnon'], 0),
                'rss_at_start': self.start['VmRSS'], 'memory': self.samples}


def warm(net):
    """One short connection, so that the relay's program is in memory before its growth is measured."""
    port = relay.SERVER_PORT + 2
    receiver = net['h3'].popen([PYTHON, PROBE, 'receive', str(port), '1'], text=True)
    try:
        relay.wait_listen(receiver, receiver.pid, port, 'probe.py receive')
        output(net['h1'].popen([PYTHON, PROBE, 'send', H3, str(port), '0.5'], text=True), 60, 'probe.py send')
        output(receiver, 60, 'probe.py receive')
    finally:
        relay.end(receiver)
    time.sleep(0.5)


def transfer(net, name, args, send=None):
    """One transfer through the relay, with rates and the relay's memory."""
    send = send or (tpbench if args.traffic == 'tpbench' else iperf3)
    with relay.relay(net['h2'], name, args) as process:
        seen = {}
        if process:
            warm(net)
            with Memory(process.pid) as memory:
                sent, arrived = send(net, args)
            seen.update(memory.figures())
        else:
            sent, arrived = send(net, args)
    target = goodput(args.bottleneck)
    seen.update(sent=figures.mean_rate(sent), arrived=figures.mean_rate(arrived), settled=figures.settled(sent, target),
                swallowed=figures.swallowed(sent, arrived), sender_intervals=sent, arrived_intervals=arrived)
    if not seen['arrived']:
        raise LabError(f'{name}: nothing arrived after {figures.SKIP:.0f} seconds')
    seen['ratio'] = seen['sent'] / seen['arrived']
    seen['believed'] = seen['sent'] / target
    return seen


def delays(net, name, args):
    """A transfer whose blocks carry their time, and what waits in the relay during it, where it can say."""
    port = relay.SERVER_PORT + 2
    tells = name.startswith('tprelay')
    with relay.relay(net['h2'], name, args, admin=tells):
        receiver = net['h3'].popen([PYTHON, PROBE, 'receive', str(port), str(args.seconds)], text=True)
        watcher = None
        try:
            relay.wait_listen(receiver, receiver.pid, port, 'probe.py receive')
            if tells:
                watcher = net['h2'].popen([PYTHON, PROBE, 'watch', f'http://{relay.ADMIN}/stats'], text=True)
            output(net['h1'].popen([PYTHON, PROBE, 'send', H3, str(port), str(args.seconds)], text=True),
                   3 * args.seconds + 60, 'probe.py send')
            seen = json.loads(output(receiver, 60, 'probe.py receive'))
            result = {'delay': figures.median_delay(seen), 'delays': seen}
            if watcher:
                watcher.terminate()
                said = [json.loads(line) for line in watcher.communicate(timeout=10)[0].splitlines() if line.endswith('}')]
                began = said[0]['t'] if said else 0
                result['pending'] = max((s['pending'] for s in said), default=0)
                result['relay_says'] = [{**s, 't': round(s['t'] - began, 3)} for s in said]
            return result
        finally:
            relay.end(receiver)
            if watcher:
                relay.end(watcher)


def rounds(net, args, say):
    """All runs, in turn; a list with one entry per round, each a map of direct, relay and control."""
    done = []
    for n in range(args.rounds):
        names = {'direct': 'none'}
        if args.relay != 'none':
            names['relay'] = args.relay
        if args.relay == 'tprelay' and not args.no_control:
            names['control'] = 'tprelay-no-flow-control'
        result = {}
        for run, name in names.items():
            say(f'round {n + 1} of {args.rounds}: {"direct" if name == "none" else name}')

            def once(run=run, name=name):
                return {**transfer(net, name, args), **({} if run == 'control' else delays(net, name, args))}
            result[run] = steal.calm(once, 0 if 'works' in (args.check or []) else AGAIN, say)
        done.append(result)
    return done


def crowd(net, args, say):
    """The relay's memory with many flows. Flows that fail are told, and do not cost the figures of all runs before."""
    say(f'{args.flows} flows')
    failed = ''
    with relay.relay(net['h2'], args.relay, args) as process:
        warm(net)
        with Memory(process.pid) as memory:
            try:
                tpbench(net, args, args.flows)
            except LabError as err:
                failed = str(err)
                say(f'{args.flows} flows: {failed}')
        seen = memory.figures()
    return {'flows': args.flows, 'growth': seen['growth'], 'growth_anonymous': seen['growth_anonymous'], 'failed': failed}
