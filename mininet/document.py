#!/usr/bin/python3
"""Measures and draws what docs/flow-control.md shows, and writes its figures into it. As root: make flow-plots.

The same network as topo.py's. Every relay sends once with iperf3 and once with blocks that carry
their time; then the receiver stops for a while, and system calls and packets are looked at. What
the page says in figures stands between two comments of the page, and is written anew each time.
"""

import argparse
import json
import os
import re
import sys
import time

import calls
import figures
import lab
import measure
import packets
import pictures
import plot
import relay
import settings
import topo

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
MIB = figures.MIB


def parse():
    """The settings: those of topo.py's network, and where to write."""
    p = argparse.ArgumentParser(prog='document.py', description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument('--out', default=os.path.join(ROOT, 'docs/plots'), metavar='DIR', help='where the plots go, and figures.json')
    p.add_argument('--page', default=os.path.join(ROOT, 'docs/flow-control.md'), metavar='FILE', help='the page whose figures are written')
    p.add_argument('--seconds', type=int, default=15, metavar='N', help='length of each transfer')
    p.add_argument('--save', metavar='FILE', help='write down all that was measured, as JSON')
    p.add_argument('--load', metavar='FILE', help='measure nothing: draw and write what --save wrote')
    given = p.parse_args()
    if not 6 <= given.seconds <= 600:
        p.error('--seconds: want 6 to 600')
    args = settings.parse([])
    args.seconds = given.seconds
    return given, args


def runs(args):
    """Which transfers: a name, what to run on h2, and whether the delay is measured too."""
    bucket = f'{os.path.normpath(args.tpbench)} peer tokenbucket --listen 127.0.0.1:{{port}} --rate '
    return [('direct', 'none', True), ('tprelay', 'tprelay', True), ('control', 'tprelay-no-flow-control', False), ('haproxy', 'haproxy', True),
            ('tokenbucket', bucket + '6mbit', True), ('tokenbucket-3', bucket + '3mbit', True), ('tokenbucket-12', bucket + '12mbit', True)]


def tell(text):
    """Tells what goes on."""
    topo.progress(text)


def measured(args):
    """All that is measured, in one map."""
    notes, done = [], {'runs': {}, 'calls': {}, 'windows': {}}
    with lab.network(args, notes) as net:
        try:
            for name, what, delay in runs(args):
                tell(f'{name}: {args.seconds} s')
                done['runs'][name] = transfer(net, args, name, what, done)
                if delay:
                    done['runs'][name].update(measure.delays(net, what, args))
            for name, what, forward in calls.relays(args):
                tell(f'{name}: a receiver that stops, and system calls')
                done['calls'][name] = calls.halted(net, args, what, forward)
        finally:
            topo.quiet()
    done.update(notes=notes, kernel=os.uname().release, date=time.strftime('%Y-%m-%d', time.gmtime()), seconds=args.seconds,
                access=args.access, bottleneck=args.bottleneck, high_watermark=args.high_watermark)
    return done


def transfer(net, args, name, what, done):
    """One transfer by iperf3; of the relays whose windows are drawn, with its packets."""
    if name not in ('tprelay', 'haproxy'):
        return measure.transfer(net, what, args)
    with packets.capture(net['h1'], relay.SERVER_PORT) as lines:
        seen = measure.transfer(net, what, args)
        done['windows'][name] = packets.windows(packets.parse(lines(), lab.H1))
    return seen


def results(done):
    """The figures of each transfer, in SI units."""
    out = {}
    base = done['runs']['direct']
    for name, run in done['runs'].items():
        out[name] = {'sender_bit_per_second': round(run['sent']), 'arrived_bit_per_second': round(run['arrived']),
                     'sender_by_arrived': round(run['ratio'], 3), 'settled_seconds': run['settled'],
                     'most_on_the_way_bytes': run['swallowed'], 'beyond_direct_bytes': run['swallowed'] - base['swallowed'],
                     'median_delay_seconds': run.get('delay'), 'pending_bytes': run.get('pending'),
                     'memory_growth_bytes': run.get('growth')}
    return out


TITLES = {'direct': 'no relay', 'tprelay': 'tprelay', 'control': 'tprelay, `--no-flow-control`', 'haproxy': 'HAProxy',
          'tokenbucket': 'token bucket at 6 Mbit/s', 'tokenbucket-3': 'token bucket at 3 Mbit/s', 'tokenbucket-12': 'token bucket at 12 Mbit/s'}


def table(done):
    """The table of the transfers, in Markdown, with what it was measured on."""
    lines = ['| relay | sender saw | arrived | settled after | most on the way | delay, median | relay grew by |',
             '| --- | --: | --: | --: | --: | --: | --: |']
    for name, r in results(done).items():
        delay = '' if r['median_delay_seconds'] is None else f'{1e3 * r["median_delay_seconds"]:.0f} ms'
        growth = '' if r['memory_growth_bytes'] is None else f'{r["memory_growth_bytes"] / MIB:.1f} MiB'
        lines.append(f'| {TITLES[name]} | {r["sender_bit_per_second"] / 1e6:.2f} Mbit/s | {r["arrived_bit_per_second"] / 1e6:.2f} Mbit/s | '
                     f'{figures.seconds(r["settled_seconds"])} | {r["most_on_the_way_bytes"] / MIB:.2f} MiB | {delay} | {growth} |')
    pending = done['runs']['tprelay'].get('pending')
    lines += ['', f'{done["date"]}, Linux {done["kernel"]}; {"; ".join(done["notes"])}; one run of {done["seconds"]} s each, '
              f'iperf3. Rates are without the first {figures.SKIP:.0f} s. ' +
              ('' if pending is None else f'tprelay held {pending / 1024:.0f} KiB at most; its high watermark is {done["high_watermark"] >> 10} KiB.')]
    return '\n'.join(lines)


def rewritten(text, name, new):
    """The text with what stands between the comments of that name replaced."""
    pattern = re.compile(rf'(<!-- {name}: begin[^>]*-->\n).*?(<!-- {name}: end -->)', re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f'want "<!-- {name}: begin -->" and "<!-- {name}: end -->" once')
    return pattern.sub(lambda found: found[1] + '\n' + new + '\n\n' + found[2], text)


def write(done, given):
    """Plots, figures and page."""
    os.makedirs(given.out, exist_ok=True)
    traces = {name: [packets.Packet(*p) for p in seen['packets']] for name, seen in done['calls'].items()}
    traced = {'flowing': [(name, *seen) for name, seen in done['windows'].items()],
              'stopped': [(name, *packets.windows(traces[name])) for name in ('tprelay', 'haproxy')],
              'span': (calls.START + calls.FLOW, calls.START + calls.FLOW + calls.SETTLE + calls.HALT)}
    for path in pictures.draw(done['runs'], traced, done['bottleneck'], given.out):
        tell(f'wrote {os.path.relpath(path)} ({os.path.getsize(path) >> 10} KiB)')
    summary = {key: done[key] for key in ('date', 'kernel', 'notes', 'seconds', 'access', 'bottleneck', 'high_watermark')}
    summary['transfers'] = results(done)
    summary['calls'] = {name: {key: seen[key] for key in (*calls.PHASES, 'growth', 'read')} for name, seen in done['calls'].items()}
    with open(os.path.join(given.out, 'figures.json'), 'w', encoding='utf-8') as out:
        json.dump(summary, out, indent=1)
        out.write('\n')
    with open(given.page, encoding='utf-8') as page:
        text = page.read()
    for name, new in (('figures', table(done)), ('calls', calls.table(done['calls'])),
                      ('trace', '```\n' + packets.excerpt(traces['tprelay'], calls.START + calls.FLOW - 0.3) + '\n```')):
        text = rewritten(text, name, new)
    with open(given.page, 'w', encoding='utf-8') as page:
        page.write(text)
    tell(f'wrote the figures of {os.path.relpath(given.page)}')


def main():
    """Everything; never returns."""
    given, args = parse()
    try:
        plot.pyplot()  # said now, not after minutes of measuring
        if given.load:
            with open(given.load, encoding='utf-8') as saved:
                done = json.load(saved)
        else:
            missing = topo.needs(args)
            if missing:
                sys.exit('document.py: ' + missing)
            topo.signals()
            done = measured(args)
            if given.save:
                with open(given.save, 'w', encoding='utf-8') as out:
                    json.dump(done, out)
        write(done, given)
    except KeyboardInterrupt:
        sys.exit('document.py: interrupted; everything is taken down')
    except (lab.LabError, plot.PlotError, OSError, ValueError) as err:
        sys.exit(f'document.py: {err}')


if __name__ == '__main__':
    main()
