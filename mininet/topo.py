#!/usr/bin/python3
"""h1 -s1- h2 -- h3 in Mininet: what a relay on h2 does to a sender when the link behind it is slow.

mininet/README.md says how to read what this prints.
"""

import json
import os
import signal
import subprocess
import sys

import figures
import lab
import measure
import relay
import steal
from settings import links, parse


def progress(text):
    """Tells on the standard error output what goes on."""
    print(text, file=sys.stderr, flush=True)


def signals():
    """Makes every usual way to end this a KeyboardInterrupt, once: what comes while it cleans up is not heard."""
    def interrupt(*_):
        quiet()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def quiet():
    """Lets the cleaning up go on in peace."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def needs(args):
    """What is missing to do what was asked for, in one line, or nothing."""
    if os.geteuid() != 0:
        return 'Mininet makes network namespaces: run as root (sudo mininet/topo.py), or see "make demo", which needs no root'
    if args.relay != 'none' and not os.access(args.tprelay, os.X_OK):
        return f'{os.path.normpath(args.tprelay)} is not there: run "make build", or give --tprelay PATH'
    tpbench = args.traffic == 'tpbench' or args.flows and args.relay == 'tprelay'
    if tpbench and not args.cli and not os.access(args.tpbench, os.X_OK):
        return f'{os.path.normpath(args.tpbench)} is not there: run "make build", or give --tpbench PATH'
    return ''


def prompt(net, args):
    """Mininet's prompt, with the relay at work."""
    # pylint: disable=import-outside-toplevel,import-error,no-name-in-module
    from mininet.cli import CLI
    from mininet.log import setLogLevel
    with relay.relay(net['h2'], args.relay, args, admin=args.relay.startswith('tprelay')):
        setLogLevel('info')
        print(f'relay on h2: {args.relay}; diverted: TCP from h1 to ports {relay.SERVER_PORT} to {relay.SERVER_PORT + 2} of h3. Try:\n'
              f'  h3 iperf3 -s -D -p {relay.SERVER_PORT}\n  h1 iperf3 -c {lab.H3} -p {relay.SERVER_PORT}\n'
              f'  h2 curl -s http://{relay.ADMIN}/stats')
        CLI(net)
        setLogLevel('error')


def run(args):
    """Builds, measures, prints; the exit status."""
    notes = []
    with lab.network(args, notes) as net:
        try:
            if args.cli:
                prompt(net, args)
                return 0
            for note in notes:
                progress(note)
            done = measure.rounds(net, args, progress)
            many = measure.crowd(net, args, progress) if args.flows and args.relay == 'tprelay' else None
        finally:
            quiet()
    rows = figures.table(done, args, many)
    warning = steal.warning(done)
    if warning:
        progress(warning)
    report = {'settings': vars(args), 'links': links(args, lab.has_netem()), 'kernel': os.uname().release, 'notes': notes, 'table': rows,
              'rounds': done, 'many': many}
    if args.save:
        with open(args.save, 'w', encoding='utf-8') as out:
            json.dump(report, out)
    if args.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        show(args, notes, done, rows)
    if args.plot:
        import plot  # pylint: disable=import-outside-toplevel
        for path in plot.draw(report, args.plot):
            progress(f'wrote {path}')
    missed = [r['key'] for r in rows if not r['ok'] and r['key'] in (args.check or [])]
    if 'works' in (args.check or []):
        missed += figures.broken(done)
    if missed:
        progress('missed: ' + ', '.join(missed))
    return 1 if missed else 0


def show(args, notes, done, rows):
    """Prints the table, and what it was measured on."""
    print(f'{args.relay}, {args.mode}, {args.traffic}; {args.access / 1e6:g} Mbit/s before, {args.bottleneck / 1e6:g} Mbit/s behind; '
          f'{args.rounds} x {args.seconds} s; Linux {os.uname().release}; {"; ".join(notes)}\n')
    if rows:
        print(figures.render(rows))
        return
    seen = [r['direct'] for r in done]
    print(f'direct: sender / arrived {figures.median(s["ratio"] for s in seen):.3f}, '
          f'{figures.median(s["arrived"] for s in seen) / 1e6:.2f} Mbit/s, delay {1e3 * (figures.median(s["delay"] for s in seen) or 0):.0f} ms, '
          f'swallowed {figures.median(s["swallowed"] for s in seen) / figures.MIB:.2f} MiB')


def main():
    """Everything; never returns."""
    args = parse()
    missing = needs(args)
    if missing:
        sys.exit('topo.py: ' + missing)
    if args.plot:
        import plot  # pylint: disable=import-outside-toplevel
        try:
            plot.pyplot()  # said now, not after minutes of measuring
        except plot.PlotError as err:
            sys.exit(f'topo.py: {err}')
    signals()
    try:
        status = run(args)
    except KeyboardInterrupt:
        progress('topo.py: interrupted; everything is taken down')
        status = 130
    except (lab.LabError, OSError, subprocess.SubprocessError) as err:
        progress(f'topo.py: {err}')
        status = 1
    sys.stdout.flush()
    sys.exit(status)


if __name__ == '__main__':
    main()
