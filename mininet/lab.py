"""The three hosts and the switch, made with Mininet, which is imported only here."""

import contextlib
import ctypes
import os
import subprocess
import time

from settings import links

CLONE_NEWNET = 0x40000000  # of <sched.h>

H1, H2_LEFT, H2_RIGHT, H3 = '10.0.1.1', '10.0.1.2', '10.0.2.2', '10.0.2.3'
NOBODY = '10.0.1.254'      # h1's default gateway with --arp-proxy: nobody has this address
BURST = 2900               # bytes that a link lets pass at once; under two packets, see RateIntf


class LabError(Exception):
    """What keeps the network from being built, in one line that says what to do."""


def has_netem():
    """Says whether this kernel can delay packets: tried on the loopback interface of a network that is thrown away."""
    try:
        done = subprocess.run(['unshare', '-n', 'tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'netem', 'delay', '1ms'],
                              capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def has_openvswitch():
    """Says whether Open vSwitch is installed and running, with its part of the kernel."""
    try:
        running = subprocess.run(['ovs-vsctl', '-t', '2', 'show'], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
    return running and os.path.exists('/sys/module/openvswitch')


def private_network():
    """Moves this process to a network of its own, so that nothing of ours is seen outside or outlives us."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise LabError(f'a network namespace: {os.strerror(ctypes.get_errno())}; run as root')
    subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)


def _classes():
    """What we change in Mininet's classes."""
    # pylint: disable=import-outside-toplevel,import-error,no-name-in-module
    from mininet.link import TCIntf, TCLink
    from mininet.node import OVSSwitch, Switch

    class RateIntf(TCIntf):
        """TCIntf with a token bucket of less than two packets.

        The stack hands over segments of up to 64 KiB. The token bucket cuts up what is larger than
        its burst, and Mininet's 15,000 bytes would let ten packets pass as one, and count as one in
        netem's queue.
        """

        def bwCmds(self, bw=None, latency_ms=None, **_):  # pylint: disable=invalid-name,arguments-differ
            """The commands that limit the rate to bw Mbit/s."""
            wait = f'{latency_ms:f}ms' if latency_ms is not None else '1s'
            return [f'%s qdisc add dev %s root handle 5: tbf rate {bw:f}Mbit burst {BURST} latency {wait}'], ' parent 5:1 '

    class RateLink(TCLink):
        """A link whose two ends are RateIntf."""

        def __init__(self, *args, **options):
            options.update(cls1=RateIntf, cls2=RateIntf)
            super().__init__(*args, **options)

    class Bridge(Switch):
        """A Linux bridge, made with ip: brctl is not always there."""

        def start(self, _controllers):
            """Makes the bridge and connects what is linked to it."""
            self.cmd(f'ip link add {self.name} type bridge stp_state 0 mcast_snooping 0')
            for intf in self.intfList():
                if intf.name != 'lo':
                    self.cmd(f'ip link set {intf.name} master {self.name} up')
            self.cmd(f'ip link set {self.name} up')

        def stop(self, deleteIntfs=True):  # pylint: disable=invalid-name
            """Removes it."""
            self.cmd(f'ip link del {self.name}')
            super().stop(deleteIntfs)

    return RateLink, Bridge, OVSSwitch


@contextlib.contextmanager
def network(args, notes):
    """The running network, taken down at the end. What is not as it was asked for is appended to notes."""
    # pylint: disable=import-outside-toplevel,import-error,no-name-in-module
    try:
        from mininet.log import setLogLevel
        from mininet.net import Mininet
    except ImportError as err:
        raise LabError(f'Mininet is missing ({err}); as root: apt-get install --no-install-recommends mininet, '
                       'and run this with /usr/bin/python3') from err
    netem = has_netem()
    if not netem:
        notes.append('rate and queue only, no delay: this kernel has no netem')
    ovs = args.switch == 'ovs' or args.switch == 'auto' and has_openvswitch()
    if args.switch == 'ovs' and not has_openvswitch():
        raise LabError('Open vSwitch is not running here; start it (ovs-ctl start), or use --switch bridge')
    notes.append('switch: ' + ('Open vSwitch' if ovs else 'Linux bridge'))
    if not ovs:
        private_network()

    setLogLevel('error')
    Mininet.inited = True  # or it would raise limits and buffer sizes of the whole machine
    link, bridge, openvswitch = _classes()
    net = Mininet(controller=None, build=False, autoSetMacs=True)
    try:
        before, behind = links(args, netem)
        h1 = net.addHost('h1', ip=f'{H1}/24', defaultRoute='via ' + (NOBODY if args.arp_proxy else H2_LEFT))
        h2 = net.addHost('h2', ip=f'{H2_LEFT}/24')
        h3 = net.addHost('h3', ip=f'{H3}/24', defaultRoute=f'via {H2_RIGHT}')
        s1 = net.addSwitch('s1', cls=openvswitch, failMode='standalone') if ovs else net.addSwitch('s1', cls=bridge)
        net.addLink(h1, s1, cls=link, **before)
        net.addLink(s1, h2, cls=link, **before)
        net.addLink(h2, h3, cls=link, **behind)
        net.start()
        h2.setIP(f'{H2_RIGHT}/24', intf='h2-eth1')
        _settings(h2, args.arp_proxy)
        reachable(h1)
        yield net
    finally:
        net.stop()


def _settings(h2, arp_proxy):
    """Makes a router of h2."""
    commands = ['sysctl -qw net.ipv4.ip_forward=1']
    if arp_proxy:
        # The kernel answers for addresses that it would reach by another interface.
        commands += [f'ip route add {NOBODY}/32 dev h2-eth1', 'sysctl -qw net.ipv4.conf.h2-eth0.proxy_arp=1']
    for command in commands:
        said = h2.cmd(command)
        if said.strip():
            raise LabError(f'h2: {command}: {said.strip()}')


def reachable(h1):
    """Waits until h3 answers h1, if only to refuse a connection."""
    for _ in range(10):
        said = h1.cmd(f'timeout 2 bash -c "</dev/tcp/{H3}/9"')
        if 'refused' in said:
            return
        time.sleep(0.3)
    raise LabError('h1 does not reach h3: ' + ' '.join(said.split()))
