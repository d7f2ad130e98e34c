"""Small ends that topo.py runs on the hosts: for delay, and for what waits in the relay.

    probe.py receive PORT SECONDS       takes one connection; prints [[t, delay], ...], seconds
    probe.py send ADDRESS PORT SECONDS  sends blocks that carry the time at which they were sent
    probe.py halt PORT BEFORE HALT AFTER  takes one connection, and reads nothing for HALT of these seconds;
                                        prints {"t", "read"} when it stops, goes on, and ends
    probe.py watch URL                  prints what the relay's statistics say, ten times a second

The ends share a clock, so the difference is the one-way delay. Each block is stamped when the
sender's socket has room, and TCP_NOTSENT_LOWAT keeps what the sender's own kernel hoards small:
the rest is the network's, and the relay's.
"""

import json
import select
import socket
import struct
import sys
import time
import urllib.request

BLOCK = 8 << 10
LOWAT = 2 * BLOCK
HALTED = 64 << 10  # the receive buffer, as asked for, of a receiver that stops
STAMP = struct.Struct('!d')
TCP_NOTSENT_LOWAT = 25  # of <linux/tcp.h>; Python's socket module names it from 3.12 on


def send(address, port, seconds):
    """Sends as fast as it goes."""
    with socket.create_connection((address, port), timeout=10) as s:
        s.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, LOWAT)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.setblocking(False)
        writable = select.poll()
        writable.register(s, select.POLLOUT)
        padding = bytes(BLOCK - STAMP.size)
        end = time.monotonic() + seconds
        rest = b''
        while time.monotonic() < end:
            if not writable.poll(100):
                continue
            rest = rest or STAMP.pack(time.time()) + padding
            try:
                rest = rest[s.send(rest):]
            except BlockingIOError:
                pass
            except ConnectionError:
                return  # the receiver has seen enough
        # What is on its way is of no interest, and must not delay the next run.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))


def receive(port, seconds):
    """Takes one connection, for so long, and gives time and delay of each block."""
    seen = []
    with socket.create_server(('', port)) as listener:
        listener.settimeout(30)
        s, _ = listener.accept()
    with s:
        began = time.time()
        s.settimeout(1)
        block = bytearray()
        while time.time() - began < seconds:
            try:
                got = s.recv(BLOCK - len(block))
            except socket.timeout:
                continue
            except OSError:
                break
            if not got:
                break
            block += got
            if len(block) == BLOCK:
                now = time.time()
                seen.append([round(now - began, 4), round(now - STAMP.unpack_from(block)[0], 5)])
                block.clear()
    return seen


def halt(port, before, stopped, after):
    """Reads, stops reading, reads on. Its own kernel may hold little, so that what comes has to wait before it."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HALTED)
        listener.bind(('', port))
        listener.listen()
        listener.settimeout(30)
        s, _ = listener.accept()
    with s:
        total = read(s, before)
        print(json.dumps({'t': time.time(), 'read': total}), flush=True)
        time.sleep(stopped)
        print(json.dumps({'t': time.time(), 'read': total}), flush=True)
        total += read(s, after)
        print(json.dumps({'t': time.time(), 'read': total}), flush=True)


def read(s, seconds):
    """How many bytes came in so many seconds."""
    total, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        s.settimeout(max(end - time.monotonic(), 0.001))
        try:
            got = len(s.recv(64 << 10))
        except socket.timeout:
            break
        if not got:
            break
        total += got
    return total


def watch(url):
    """Prints a line of the relay's statistics ten times a second, until it is told to end or the relay ends."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                stats = json.load(answer)
        except OSError:
            return
        print(json.dumps({'t': time.time(), 'pending': stats.get('Pending', 0), 'memory': stats.get('Memory', 0),
                          'pauses': stats.get('Pauses', 0), 'throttles': stats.get('Throttles', 0)}), flush=True)
        time.sleep(0.1)


def main(argv):
    """Runs the one that was named."""
    name, rest = argv[1], argv[2:]
    if name == 'send':
        send(rest[0], int(rest[1]), float(rest[2]))
    elif name == 'receive':
        print(json.dumps(receive(int(rest[0]), float(rest[1]))))
    elif name == 'halt':
        halt(int(rest[0]), *map(float, rest[1:]))
    else:
        watch(rest[0])


if __name__ == '__main__':
    try:
        main(sys.argv)
    except KeyboardInterrupt:
        pass
    except OSError as err:
        sys.exit(f'{" ".join(sys.argv[1:])}: {err}')
