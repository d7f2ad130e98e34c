"""How much of this machine's processor time its host kept for others: steal in /proc/stat (proc(5))."""

# The least share that spoils a run's figures: 6 Mbit/s leave no gaps to catch up in.
MUCH = 0.02


def parse(text):
    """Steal and the sum of all times, in ticks, from the text of /proc/stat."""
    times = [int(word) for word in text.split('\n', 1)[0].split()[1:9]]
    return times[7], sum(times)


def now():
    """The same, as they are."""
    with open('/proc/stat', encoding='ascii') as stat:
        return parse(stat.read())


def share(before, after):
    """The share that was stolen between the two."""
    return (after[0] - before[0]) / max(after[1] - before[1], 1)


def calm(measure, again, say):
    """What measure gives, a map, with the share that was stolen meanwhile; repeated, up to so many times, when that is much.
    The run with the least counts."""
    runs = []
    for left in range(again, -1, -1):
        before = now()
        runs.append(measure())
        stolen = runs[-1]['stolen'] = share(before, now())
        if stolen <= MUCH or not left:
            break
        say(f'this machine waited for its host for {100 * stolen:.0f} % of the time: once more')
    return min(runs, key=lambda seen: seen['stolen'])


def warning(done):
    """One line when rounds were kept that much was stolen from, else nothing."""
    spoiled = [run['stolen'] for one in done for run in one.values() if run.get('stolen', 0) > MUCH]
    if not spoiled:
        return ''
    return (f'the machine waited for its host in {len(spoiled)} of {sum(len(one) for one in done)} runs, at most '
            f'{100 * max(spoiled):.0f} % of the time: figures that missed mean little')
