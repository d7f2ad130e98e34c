#!/usr/bin/python3
"""The bottleneck topology for Mininet, h1 - s1 - h2 - h3, and tprelay on h2.

    sudo mn --custom mininet/topo.py --topo bottleneck --link tc
    sudo mn --custom mininet/topo.py --topo bottleneck,relay=1 --link tc
    sudo mininet/topo.py [FLAGS OF THE NETWORK] [FLAGS OF tpbench slow]

The first two give Mininet's prompt, without and with the relay. The third measures, with
"tpbench slow" attached to the hosts. mininet/README.md says what all of it means.
"""

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

try:
    from mininet.cli import CLI
    from mininet.link import TCIntf, TCLink
    from mininet.log import setLogLevel
    from mininet.net import Mininet
    from mininet.node import Host, OVSSwitch, Switch
    from mininet.topo import Topo
except ImportError as missing:
    sys.exit(f'topo.py: Mininet is missing ({missing}); as root: apt-get install mininet, '
             'and run this with /usr/bin/python3')

H1, H2_LEFT, H2_RIGHT, H3 = '10.0.1.1', '10.0.1.2', '10.0.2.2', '10.0.2.3'
NOBODY = '10.0.1.254'  # h1's default gateway with arp_proxy: no host has this address
FRAME = 1514           # bytes of a full packet with its Ethernet header: what links count
BURST = 2900           # bytes that a link lets pass at once, see RateIntf
RELAY_PORT = 9091

# What topo.py has tpbench measure, unless its command line says otherwise.
DEFAULTS = {
    '--relays': 'direct,tprelay,tprelay-no-flow-control', '--seconds': '20', '--rounds': '3',
    '--interval': '100ms', '--crowd': '200', '--ordinary': None, '--goals': None,
}


class MininetError(Exception):
    """What keeps the network from being built, in one line that says what to do."""


def link_options(mbit, delay, queue, netem):
    """How TCLink is to shape a link of mbit Mbit/s with a delay in ms and a queue in bytes.

    With netem, rate limit and delay share one queue that counts packets, so those that are
    delayed are added. Without it, a token bucket holds exactly the bytes, and there is no delay.
    """
    options = {'bw': mbit, 'use_tbf': True}
    if not netem:
        return {**options, 'latency_ms': queue * 8e-3 / mbit}
    packets = -(-int(queue) // FRAME)
    if delay > 0:
        options['delay'] = f'{delay * 1e3:.0f}us'
        packets += -(-int(mbit * 125 * delay) // FRAME)
    return {**options, 'max_queue_size': packets}


def has_netem():
    """Says whether this kernel can delay packets. It tries, in a network of its own."""
    return _succeeds(*'unshare -n tc qdisc add dev lo root netem delay 1ms'.split())


def has_openvswitch():
    """Says whether Open vSwitch is installed and runs, with its kernel module."""
    return os.path.exists('/sys/module/openvswitch') and _succeeds('ovs-vsctl', '-t', '2', 'show')


def _succeeds(*command):
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def program(name):
    """The path of tprelay or tpbench: beside this file in ../bin, or else in PATH."""
    # mn runs this file without setting __file__.
    here = os.path.dirname(os.path.abspath(link_options.__code__.co_filename))
    path = shutil.which(name, path=os.path.join(here, '../bin')) or shutil.which(name)
    if not path:
        raise MininetError(f'there is no {name} in bin/ or in PATH: run "make build"')
    return os.path.normpath(path)


class RateIntf(TCIntf):
    """TCIntf with a token bucket of less than two packets.

    The stack hands over segments of up to 64 KiB. The token bucket cuts up what is larger than
    its burst. Mininet's 15,000 bytes would let ten packets pass as one, and netem would count
    them as one.
    """

    def bwCmds(self, bw=None, latency_ms=None, **_):  # pylint: disable=invalid-name,arguments-differ
        """The commands that limit the rate to bw Mbit/s."""
        wait = f'{latency_ms:f}ms' if latency_ms is not None else '1s'
        limit = f'tbf rate {bw:f}Mbit burst {BURST} latency {wait}'
        return [f'%s qdisc add dev %s root handle 5: {limit}'], ' parent 5:1 '


class RateLink(TCLink):
    """A link whose two ends are RateIntf."""

    def __init__(self, *args, **options):
        options.update(cls1=RateIntf, cls2=RateIntf)
        super().__init__(*args, **options)


class IPBridge(Switch):
    """A Linux bridge made with ip, as Mininet's own needs brctl, which is not always there."""

    def start(self, _controllers):
        """Makes the bridge and connects its links."""
        self.cmd(f'ip link add {self.name} type bridge stp_state 0 mcast_snooping 0')
        for intf in self.intfList():
            if intf.name != 'lo':
                self.cmd(f'ip link set {intf.name} master {self.name} up')
        self.cmd(f'ip link set {self.name} up')

    def stop(self, deleteIntfs=True):  # pylint: disable=invalid-name
        """Removes it."""
        self.cmd(f'ip link del {self.name}')
        super().stop(deleteIntfs)


class Router(Host):
    """A host that forwards, between the network of its first interface and that of its second.

    right is the address of the second interface. arp_proxy is a gateway on the first one's side
    that the router answers for, or None.
    """

    def config(self, right=None, arp_proxy=None, **params):  # pylint: disable=arguments-differ
        """Sets the second address, and forwarding."""
        result = super().config(**params)
        self.setIP(right, intf=f'{self.name}-eth1')
        commands = ['sysctl -qw net.ipv4.ip_forward=1']
        if arp_proxy:
            # The kernel answers for addresses that it would reach by another interface.
            commands += [f'ip route add {arp_proxy}/32 dev {self.name}-eth1',
                         f'sysctl -qw net.ipv4.conf.{self.name}-eth0.proxy_arp=1']
        for command in commands:
            said = self.cmd(command).strip()
            if said:
                raise MininetError(f'{self.name}: {command}: {said}')
        return result


class TPRelayHost(Router):
    """A router with tprelay: TCP connections that come in by its first interface go through it."""

    def __init__(self, *args, **params):
        self.relay, self.folder = None, None
        super().__init__(*args, **params)

    def config(self, mode='tproxy', flags=(), **params):  # pylint: disable=arguments-differ,arguments-renamed
        """Starts the relay, and then its rules: rules without a relay would refuse connections."""
        result = super().config(**params)
        self.folder = tempfile.mkdtemp(prefix='tprelay-')
        with open(self._log(), 'w', encoding='utf-8') as log:
            line = [program('tprelay'), 'run', '--mode', mode, '--listen', f':{RELAY_PORT}',
                    '--admin', '127.0.0.1:9092', *flags]
            self.relay = self.popen(line, stdout=log, stderr=log)
        self._wait()
        address = '127.0.0.1' if mode == 'tproxy' else self.IP()
        self._rules('apply', '--mode', mode, '--listen', f'{address}:{RELAY_PORT}',
                    '--in', f'{self.name}-eth0', '--set-sysctls')
        return result

    def terminate(self):
        """Removes the rules, ends the relay, and then the host."""
        if self.relay:
            try:
                self._rules('remove')
            finally:
                self.relay.terminate()
                try:
                    self.relay.wait(10)
                except subprocess.TimeoutExpired:
                    self.relay.kill()
                    self.relay.wait()
                self.relay = None
                shutil.rmtree(self.folder)
        super().terminate()

    def _log(self):
        return os.path.join(self.folder, 'tprelay.log')

    def _rules(self, action, *flags):
        state = os.path.join(self.folder, 'rules')
        with self.popen([program('tprelay'), 'rules', action, '--state', state, *flags],
                        text=True) as process:
            out, err = process.communicate(timeout=60)
        if process.returncode != 0:
            raise MininetError(f'{self.name}: tprelay rules {action}: {(err or out).strip()}')

    def _wait(self):
        """Returns when the relay listens."""
        for _ in range(600):
            if f':{RELAY_PORT}' in self.cmd('ss -Hltn'):
                return
            if self.relay.poll() is not None:
                break
            time.sleep(0.1)
        with open(self._log(), encoding='utf-8') as log:
            raise MininetError(f'{self.name}: tprelay does not listen: {log.read().strip()}')


class Bottleneck(Topo):
    """h1 - s1 - h2 - h3, with a slow link between h2 and h3.

    access, bottleneck: rates of the links before h2 and behind it, in Mbit/s.
    delay: of each link, one way, in ms; 0 where this kernel has no netem.
    queue: before the slow link, as the ms to pass it; factor: the other queues are so many times
    longer, in bytes.
    relay: h2 runs tprelay. mode: tproxy or redirect.
    arp_proxy: h1's gateway is not h2, but an address that h2 answers for.
    switch: ovs, bridge, or auto, which is Open vSwitch where it runs.
    """

    # pylint: disable=arguments-differ,too-many-arguments,too-many-locals
    def build(self, access=20, bottleneck=6, delay=10, queue=90, factor=10, relay=0, mode='tproxy',
              arp_proxy=0, switch='auto'):
        """Adds hosts, switch and links."""
        netem = has_netem()
        length = max(bottleneck * 125 * queue, 10 * FRAME)
        before = link_options(access, delay, length * factor, netem)
        behind = link_options(bottleneck, delay, length, netem)
        router = {'cls': TPRelayHost, 'mode': mode} if relay else {'cls': Router}
        ovs = switch == 'ovs' or switch == 'auto' and has_openvswitch()
        h1 = self.addHost('h1', ip=f'{H1}/24', defaultRoute='via ' +
                          (NOBODY if arp_proxy else H2_LEFT))
        h2 = self.addHost('h2', ip=f'{H2_LEFT}/24', right=f'{H2_RIGHT}/24',
                          arp_proxy=NOBODY if arp_proxy else None, **router)
        h3 = self.addHost('h3', ip=f'{H3}/24', defaultRoute=f'via {H2_RIGHT}')
        bridge = {'cls': OVSSwitch, 'failMode': 'standalone'} if ovs else {'cls': IPBridge}
        s1 = self.addSwitch('s1', **bridge)
        self.addLink(h1, s1, cls=RateLink, **before)
        self.addLink(s1, h2, cls=RateLink, **before)
        self.addLink(h2, h3, cls=RateLink, **behind)


topos = {'bottleneck': Bottleneck}


def private_network():
    """Moves this process to a network of its own, which ends with it."""
    clone_newnet = 0x40000000  # of <sched.h>
    if ctypes.CDLL(None, use_errno=True).unshare(clone_newnet) != 0:
        raise MininetError(f'a network namespace: {os.strerror(ctypes.get_errno())}; run as root')
    subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)


@contextlib.contextmanager
def network(args):
    """The running network, taken down at the end."""
    if args.switch == 'ovs' and not has_openvswitch():
        raise MininetError(
            'Open vSwitch does not run here; start it (ovs-ctl start), or use --switch bridge')
    if args.switch == 'auto':
        args.switch = 'ovs' if has_openvswitch() else 'bridge'
    if args.switch == 'bridge':
        private_network()
    setLogLevel('error')
    Mininet.inited = True  # otherwise it would raise limits and buffer sizes of the whole machine
    topo = Bottleneck(**{name: getattr(args, name) for name in PARAMETERS})
    net = Mininet(topo=topo, controller=None, build=False, autoSetMacs=True)
    try:
        net.build()
        net.start()
        reachable(net['h1'])
        yield net
    finally:
        net.stop()


def reachable(h1):
    """Waits until h1's connections get an answer: h3 refuses them, or a relay takes them first."""
    for _ in range(10):
        said = h1.cmd(f'timeout 2 bash -c "</dev/tcp/{H3}/9" && echo connected')
        if 'refused' in said or 'connected' in said:
            return
        time.sleep(0.3)
    raise MininetError('h1 does not reach h3: ' + ' '.join(said.split()))


PARAMETERS = (
    'access',
    'bottleneck',
    'delay',
    'queue',
    'factor',
    'relay',
    'mode',
    'arp_proxy',
    'switch')


def parse(argv):
    """The network's settings, and the arguments for tpbench."""
    p = argparse.ArgumentParser(
        prog='topo.py', formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False,
        description='Measures what a relay on h2 of h1 - s1 - h2 - h3 does when the link behind it '
        'is slow. As root. Further flags are those of "tpbench slow" (tpbench slow --help).')
    p.add_argument('--access', type=float, default=20, metavar='MBIT',
                   help='rate of the links h1-s1 and s1-h2')
    p.add_argument('--bottleneck', type=float, default=6, metavar='MBIT',
                   help='rate of the link h2-h3')
    p.add_argument('--delay', type=float, default=10, metavar='MS',
                   help='of each link, one way; needs netem')
    p.add_argument('--queue', type=float, default=90, metavar='MS',
                   help='of the slow link, as the time to pass it')
    p.add_argument('--factor', type=float, default=10, metavar='N',
                   help='the other queues are so many times longer, in bytes')
    p.add_argument('--switch', choices=('auto', 'ovs', 'bridge'), default='auto',
                   help='Open vSwitch or Linux bridge')
    p.add_argument('--arp-proxy', action='store_true',
                   help='h1 keeps a default gateway that is not h2, and h2 answers for it')
    p.add_argument('--mode', choices=('tproxy', 'redirect'), default='tproxy',
                   help='how connections come to the relay')
    p.add_argument('--cli', action='store_true',
                   help="give Mininet's prompt, with tprelay on h2, instead of measuring")
    p.add_argument('--document', action='store_true',
                   help='write the figures of docs/flow-control.md; further flags are then those '
                   'of "tpbench document"')
    args, rest = p.parse_known_args(argv)
    args.relay = args.cli
    if not 0 < args.bottleneck < args.access <= 1000:
        p.error('--bottleneck: must be less than --access, and that at most 1000')
    if args.queue <= 0 or args.delay < 0 or not 0 < args.factor <= 1000:
        p.error('--queue, --delay, --factor: must be positive, and --factor at most 1000')
    return args, rest


def tpbench(args, rest, pids):
    """What measures: tpbench, attached to the hosts with these process ids."""
    netem = has_netem()
    switch = 'Open vSwitch' if args.switch == 'ovs' else 'Linux bridge'
    line = [program('tpbench'), 'document' if args.document else 'slow',
            '--attach', ','.join(map(str, pids)),
            '--access', f'{args.access:f}mbit', '--bottleneck', f'{args.bottleneck:f}mbit',
            '--queue', f'{args.queue:g}ms', '--delay', f'{args.delay if netem else 0:g}ms',
            '--note', f'Mininet, switch: {switch}']
    if not netem:
        line += ['--note', 'rate and queue only, no delay: this kernel has no netem']
    if args.document:
        return line + rest
    given = {word.partition('=')[0] for word in rest}
    for flag, value in {**DEFAULTS, '--mode': args.mode}.items():
        if flag not in given:
            line += [flag] if value is None else [flag, value]
    return line + rest


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def measure(net, args, rest):
    """Runs tpbench to its end, and gives its exit status. Signals are passed on to it."""
    line = tpbench(args, rest, [net[name].pid for name in ('h1', 'h2', 'h3')])
    # In a session of its own, the terminal's Ctrl-C does not reach it as well.
    with subprocess.Popen(line, start_new_session=True) as process:
        for number in SIGNALS:
            signal.signal(number, lambda number, _: process.send_signal(number))
        return process.wait()


def run(args, rest):
    """Builds the network and measures; the exit status."""
    def interrupt(*_):
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, interrupt)
    try:
        with network(args) as net:
            try:
                if not args.cli:
                    return measure(net, args, rest)
                setLogLevel('info')
                print(f'tprelay runs on h2 ({args.mode}). Try:\n'
                      f'  h3 iperf3 -s -D\n  h1 iperf3 -c {H3}\n'
                      '  h2 curl -s http://127.0.0.1:9092/stats')
                CLI(net)
                return 0
            finally:
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_IGN)
    except KeyboardInterrupt:
        print('topo.py: interrupted; everything is taken down', file=sys.stderr)
        return 130


def main(argv):
    """Everything, and the exit status."""
    args, rest = parse(argv)
    if os.geteuid() != 0:
        return 'topo.py: Mininet needs root; "make demo" does not'
    try:
        program('tprelay')
        return run(args, rest)
    except (MininetError, OSError, subprocess.SubprocessError) as err:
        return f'topo.py: {err}'


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
