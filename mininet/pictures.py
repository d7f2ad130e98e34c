"""The pictures of docs/flow-control.md. Needs matplotlib, by way of plot.py."""

import os

import figures
import plot

COLOURS = {'direct': '#777777', 'tprelay': '#1f77b4', 'control': '#d62728', 'haproxy': '#2ca02c', 'tokenbucket': '#9467bd'}


def names(run):
    """What a run is called in a picture."""
    return {'direct': 'no relay', 'tprelay': 'tprelay', 'control': 'tprelay without flow control', 'haproxy': 'HAProxy',
            'tokenbucket': 'token bucket, 6 Mbit/s'}.get(run, run)


def _save(plt, figure, folder, name):
    path = os.path.join(folder, name)
    figure.tight_layout()
    figure.savefig(path, metadata={'Date': None})
    plt.close(figure)
    return path


def rates(plt, runs, bottleneck, folder):
    """Small multiples: what the sender saw, and what arrived."""
    figure, axes = plt.subplots(1, len(runs), sharey=True, squeeze=False, figsize=(2.5 * len(runs), 2.8))
    for axis, (name, run) in zip(axes[0], runs.items()):
        axis.plot(*plot.smooth(run['sender_intervals']), color=COLOURS[name], label='sender')
        axis.plot(*plot.smooth(run['arrived_intervals']), color='black', linestyle=':', label='arrived')
        axis.axhline(bottleneck / 1e6, color='black', linewidth=0.5)
        axis.set_title(names(name), fontsize=9)
        axis.set_xlabel('seconds')
        axis.legend(fontsize=8, frameon=False)
    axes[0][0].set_ylabel('Mbit/s')
    axes[0][0].set_ylim(bottom=0)
    return _save(plt, figure, folder, 'rates.svg')


def whereabouts(plt, runs, folder):
    """What was sent and had not arrived, and how long it took."""
    figure, (held, late) = plt.subplots(1, 2, figsize=(10, 3.2))
    for name, run in runs.items():
        if name != 'control':  # it would leave nothing of the others to be seen
            way = figures.under_way(run['sender_intervals'], run['arrived_intervals'])
            held.plot([t for t, _ in way], [n / 1024 for _, n in way], color=COLOURS[name], label=names(name))
        if run.get('delays'):
            late.plot(*thin([t for t, _ in run['delays']], [1e3 * d for _, d in run['delays']]), color=COLOURS[name], label=names(name))
    held.set_ylabel('sent and not arrived, KiB')
    late.set_ylabel('one-way delay, ms')
    for axis in (held, late):
        axis.set_ylim(bottom=0)
        axis.set_xlabel('seconds')
    late.legend(fontsize=8, frameon=False)
    return _save(plt, figure, folder, 'whereabouts.svg')


def thin(times, values, most=300):
    """At most so many points: the middle one of each group."""
    step = max(1, -(-len(times) // most))
    return times[step // 2::step], values[step // 2::step]


def window(plt, lines, folder):
    """The receive window that the sender is told: (name, times, bytes) for each relay."""
    figure, axis = plt.subplots(figsize=(9, 3.2))
    for name, times, values in lines:
        axis.plot(*thin(times, [v / 1024 for v in values], 500), color=COLOURS[name], label=names(name), drawstyle='steps-post')
    axis.set_yscale('symlog', linthresh=10)
    axis.set_ylim(bottom=0)
    axis.set_ylabel('window, KiB')
    axis.set_xlabel('seconds')
    axis.legend(fontsize=8, frameon=False, loc='upper right')
    return _save(plt, figure, folder, 'window.svg')


def stopped(plt, lines, span, folder):
    """The window while the receiver has stopped, from and to the seconds of span."""
    figure, axis = plt.subplots(figsize=(9, 3.2))
    for name, times, values in lines:
        axis.plot(*thin(times, [v / 1024 for v in values], 500), color=COLOURS[name], label=names(name), drawstyle='steps-post')
    axis.axvspan(*span, color='#eeeeee')
    axis.text(sum(span) / 2, 100, 'the receiver has stopped', ha='center')
    axis.set_yscale('symlog', linthresh=10)
    axis.set_ylim(bottom=0)
    axis.set_ylabel('window, KiB')
    axis.set_xlabel('seconds')
    axis.legend(fontsize=8, frameon=False)
    return _save(plt, figure, folder, 'stopped.svg')


def pending(plt, says, folder):
    """What the relay says of itself: bytes pending, and pauses and throttles so far."""
    figure, (held, counts) = plt.subplots(1, 2, figsize=(10, 3.2))
    times = [s['t'] for s in says]
    held.plot(times, [s['pending'] / 1024 for s in says], color=COLOURS['tprelay'])
    held.set_ylabel('pending, KiB')
    for key, colour in (('pauses', COLOURS['tprelay']), ('throttles', COLOURS['control'])):
        counts.plot(times, [s[key] - says[0][key] for s in says], color=colour, label=key)
    counts.set_ylabel('so far')
    counts.legend(fontsize=8, frameon=False)
    for axis in (held, counts):
        axis.set_ylim(bottom=0)
        axis.set_xlabel('seconds')
    return _save(plt, figure, folder, 'pending.svg')


def draw(runs, traced, bottleneck, folder):
    """All of them; their files' names."""
    plt = plot.pyplot()
    plt.rcParams.update({'svg.hashsalt': 'tprelay', 'svg.fonttype': 'none', 'font.size': 9, 'lines.linewidth': 1.2, 'path.simplify': True,
                         'axes.spines.top': False, 'axes.spines.right': False})
    os.makedirs(folder, exist_ok=True)
    paths = [rates(plt, {name: run for name, run in runs.items() if name in COLOURS}, bottleneck, folder),
             whereabouts(plt, {name: run for name, run in runs.items() if name in COLOURS}, folder),
             window(plt, traced['flowing'], folder), stopped(plt, traced['stopped'], traced['span'], folder)]
    if runs['tprelay'].get('relay_says'):
        paths.append(pending(plt, runs['tprelay']['relay_says'], folder))
    return paths
