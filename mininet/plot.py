"""Plots of what topo.py measured. Needs matplotlib, which is imported only here."""

import os

import figures

NAMES = {'direct': 'without a relay', 'relay': 'through the relay', 'control': 'without flow control'}
COLOURS = {'direct': '#777777', 'relay': '#1f77b4', 'control': '#d62728'}


class PlotError(Exception):
    """Why nothing can be drawn, in one line that says what to do."""


def pyplot():
    """Matplotlib, drawing to files; it takes no display."""
    try:
        import matplotlib  # pylint: disable=import-outside-toplevel
        matplotlib.use('Agg')
        from matplotlib import pyplot as plt  # pylint: disable=import-outside-toplevel
    except ImportError as err:
        raise PlotError('--plot: matplotlib is missing; as root: apt-get install --no-install-recommends python3-matplotlib') from err
    return plt


def smooth(intervals, window=0.5):
    """Rates in Mbit/s over windows of so many seconds: the times at which they end, and the rates."""
    times, rates, part = [], [], []
    for interval in intervals:
        part.append(interval)
        if part[-1][1] - part[0][0] >= window - 1e-3:
            times.append(part[-1][1])
            rates.append(figures.mean_rate(part, 0) / 1e6)
            part = []
    return times, rates


def _save(plt, figure, folder, name):
    path = os.path.join(folder, name)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _axes(plt, runs):
    """A figure with a panel below the other for each run."""
    figure, axes = plt.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False, figsize=(9, 2.6 * len(runs)))
    axes[-1][0].set_xlabel('seconds')
    return figure, [row[0] for row in axes]


def _rates(plt, runs, bottleneck, folder):
    figure, axes = _axes(plt, runs)
    for axis, (name, run) in zip(axes, runs.items()):
        axis.plot(*smooth(run['sender_intervals']), color=COLOURS[name], label='sender')
        axis.plot(*smooth(run['arrived_intervals']), color='black', linestyle=':', label='arrived')
        axis.axhline(bottleneck / 1e6, color='black', linewidth=0.5)
        axis.set_ylabel('Mbit/s')
        axis.set_title(NAMES[name])
        axis.legend()
    axes[0].set_ylim(bottom=0)  # of all panels, and only now: it ends their scaling by themselves
    return _save(plt, figure, folder, 'rates.png')


def _lines(plt, lines, label, folder, name):
    """One panel with a line for each run: name of the run, times, values."""
    figure, axes = plt.subplots(figsize=(9, 3.5))
    for run, times, values in lines:
        axes.plot(times, values, color=COLOURS[run], label=NAMES[run])
    axes.set_ylim(bottom=0)
    axes.set_xlabel('seconds')
    axes.set_ylabel(label)
    axes.legend()
    return _save(plt, figure, folder, name)


def draw(report, folder):
    """Draws the first round of the report into the folder, and gives the files' names."""
    plt = pyplot()
    os.makedirs(folder, exist_ok=True)
    runs = report['rounds'][0]
    paths = [_rates(plt, runs, report['settings']['bottleneck'], folder)]
    delays = [(name, [t for t, _ in run['delays']], [1e3 * d for _, d in run['delays']]) for name, run in runs.items() if 'delays' in run]
    if delays:
        paths.append(_lines(plt, delays, 'one-way delay, ms', folder, 'delay.png'))
    memory = [(name, [s[0] for s in run['memory']], [s[1] / figures.MIB for s in run['memory']]) for name, run in runs.items() if 'memory' in run]
    if memory:
        paths.append(_lines(plt, memory, "the relay's memory, MiB", folder, 'memory.png'))
    says = [(name, [s['t'] for s in run['relay_says']], [s['pending'] / 1024 for s in run['relay_says']])
            for name, run in runs.items() if run.get('relay_says')]
    if says:
        paths.append(_lines(plt, says, 'pending in the relay, KiB', folder, 'pending.png'))
    return paths
