"""From what was seen to figures, and what they must be. Pure arithmetic."""

import statistics

SKIP = 2.0    # seconds at the start that do not count: slow start, and buffers that fill
WINDOW = 1.0  # seconds over which a rate is taken, for the time until it is right
MIB = 1 << 20


def mean_rate(intervals, skip=SKIP):
    """The rate of what came after skip seconds, in bit/s. Intervals are [start, end, bytes]."""
    counted = [i for i in intervals if i[0] >= skip - 1e-3]
    span = sum(end - start for start, end, _ in counted)
    return sum(i[2] for i in counted) * 8 / span if span > 0 else 0.0


def settled(intervals, target, tolerance=0.1):
    """Seconds until the sender's rate is within the tolerance of the target; None: never.

    That is the first moment from which the mean over the next second is, and the mean over all that
    follows too: a rate that falls through the target on its way to nothing is not there yet.
    """
    if not intervals:
        return None
    last = intervals[-1][1]
    for n, (start, _, _) in enumerate(intervals):
        if start + WINDOW > last + 0.05:
            return None
        window = [i for i in intervals[n:] if i[1] <= start + WINDOW + 0.02]
        if all(abs(mean_rate(part, 0) / target - 1) <= tolerance for part in (window, intervals[n:])):
            return start
    return None


def under_way(sent, arrived):
    """What was on the way at the end of each interval of the sender, as [time, bytes].

    That is what was sent less what had arrived, both counted from their own start.
    """
    seen, there, j = [], 0, 0
    out = 0
    for _, end, count in sent:
        out += count
        while j < len(arrived) and arrived[j][1] <= end + 1e-3:
            there += arrived[j][2]
            j += 1
        seen.append([end, out - there])
    return seen


def swallowed(sent, arrived):
    """The most that was on the way at any time, in bytes."""
    return max((count for _, count in under_way(sent, arrived)), default=0)


def median_delay(seen, skip=SKIP):
    """The median of the delays after skip seconds; None if there are none."""
    delays = [delay for t, delay in seen if t >= skip]
    return statistics.median(delays) if delays else None


def median(values):
    """The median of those that are there; None if one is missing, as a run that never got there is worst."""
    values = list(values)
    return statistics.median(values) if values and None not in values else None


def row(key, title, must, value, good, shown):
    """A line of the table."""
    return {'key': key, 'figure': title, 'must': must, 'measured': shown if value is not None else 'never',
            'value': value, 'ok': value is not None and good(value)}


def table(rounds, args, many=None):
    """The lines of the table, from the rounds: each maps direct, relay and control to what a run measured."""
    def of(run, key):
        return median(r[run].get(key) for r in rounds if run in r)

    def against(key, combine):
        return median(None if r['direct'].get(key) is None or r['relay'].get(key) is None
                      else combine(r['relay'][key], r['direct'][key]) for r in rounds)

    if 'relay' not in rounds[0]:
        return []
    # What relay and direct did in the same round is compared; the median of that counts.
    ratio, settle = of('relay', 'ratio'), of('relay', 'settled')
    share = against('arrived', lambda a, b: a / b)
    delay = against('delay', lambda a, b: a - b)
    hidden = against('swallowed', lambda a, b: a - b)
    rows = [
        row('ratio', f'sender / arrived, seconds 2-{args.seconds}', '0.95 to 1.05', ratio,
            lambda v: 0.95 <= v <= 1.05, f'{ratio or 0:.3f} (direct {of("direct", "ratio") or 0:.3f})'),
        row('settle', "until the sender's rate is within 10 %", '<= 2 s', settle,
            lambda v: v <= 2, f'{settle or 0:.1f} s (direct {seconds(of("direct", "settled"))})'),
        row('throughput', 'throughput at h3 against direct', '>= 0.98', share,
            lambda v: v >= 0.98, f'{share or 0:.3f} ({(of("relay", "arrived") or 0) / 1e6:.2f} Mbit/s)'),
        row('delay', 'added one-way delay under load, median', '<= 150 ms', delay,
            lambda v: v <= 0.15, f'{1e3 * (delay or 0):.0f} ms (direct {1e3 * (of("direct", "delay") or 0):.0f} ms)'),
        row('swallowed', 'swallowed on the way, beyond direct', '<= 0.8 MiB', hidden,
            lambda v: v <= 0.8 * MIB, f'{(hidden or 0) / MIB:.2f} MiB (direct {(of("direct", "swallowed") or 0) / MIB:.2f} MiB)'),
    ]
    if 'pending' in rounds[0]['relay']:
        pending = max(r['relay']['pending'] for r in rounds)
        rows.append(row('pending', 'pending bytes in the relay, maximum', f'<= {args.high_watermark >> 10} KiB', pending,
                        lambda v: v <= args.high_watermark, f'{pending / 1024:.0f} KiB'))
    growth = of('relay', 'growth')
    rows.append(row('memory', "growth of the relay's memory, 1 flow", '<= 1 MiB', growth, lambda v: v <= MIB,
                    f'{(growth or 0) / MIB:.2f} MiB'))
    if many:
        most = many['flows'] * args.high_watermark
        rows.append(row('flows', f'the same, {many["flows"]} flows', f'<= {most / MIB:.0f} MiB', many['growth'],
                        lambda v: v <= most,
                        f'{many["growth"] / MIB:.2f} MiB' + (', some timed out' if many.get('failed') else '')))
    if 'control' in rounds[0]:
        believed, grown = of('control', 'believed'), of('control', 'growth')
        rows.append(row('control', 'without flow control: sender / bottleneck', '> 2, memory grows', believed,
                        lambda v: v > 2 and grown > MIB, f'{believed or 0:.2f}, by {(grown or 0) / MIB:.1f} MiB'))
    return rows


def broken(rounds):
    """What does not work at all, in any round, whatever the figures: they depend on how busy the machine is."""
    wrong = []
    for n, runs in enumerate(rounds, 1):
        wrong += [f'round {n}: nothing arrived, {name}' for name, run in runs.items() if not run['sent'] or not run['arrived']]
        if 'control' in runs and runs['control']['sent'] <= max(run['sent'] for name, run in runs.items() if name != 'control'):
            wrong.append(f'round {n}: the sender was not faster without flow control')
    return wrong


def seconds(value):
    """A time for a person."""
    return 'never' if value is None else f'{value:.1f} s'


def render(rows):
    """The table as text."""
    lines = [('figure', 'must', 'measured', '')] + [(r['figure'], r['must'], r['measured'], '' if r['ok'] else 'MISSED') for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    return '\n'.join('  '.join([*(cell.ljust(w) for cell, w in zip(line, widths)), line[3]]).rstrip() for line in lines)
