"""A relay that polls level-triggered, to count what a pause costs it.

    level.py LISTEN SERVER keep|remove

Clients connect to LISTEN (ADDRESS:PORT), it connects to SERVER, and passes on what they send. It
holds at most HIGH bytes. When that is reached it does not read: with "keep", epoll is left to
report the source as readable; with "remove", epoll_ctl takes the source out, and puts it back when
the relay reads again. One connection, one direction: it is here to be counted, not to be used.
"""

import select
import socket
import sys

HIGH, LOW = 64 << 10, 16 << 10


class Direction:  # pylint: disable=too-few-public-methods
    """What one side sends, on its way to the other."""

    def __init__(self, source, sink, remove):
        self.source, self.sink, self.remove = source, sink, remove
        self.pending, self.paused = bytearray(), False
        self.poll = select.epoll()
        self.poll.register(source, select.EPOLLIN)
        self.waits = False  # for the sink

    def run(self):
        """Until the source ends."""
        while True:
            writable = not self.waits
            for number, events in self.poll.poll():
                writable |= number == self.sink.fileno()
                if number == self.source.fileno() and not self.paused:
                    got = self.source.recv(16 << 10)
                    if not got:
                        return
                    self.pending += got
                elif events & (select.EPOLLERR | select.EPOLLHUP):
                    return
            if writable:
                self._flush()
            self._pause()

    def _flush(self):
        while self.pending:
            try:
                del self.pending[:self.sink.send(self.pending)]
            except BlockingIOError:
                break
        if bool(self.pending) != self.waits:
            self.waits = not self.waits
            if self.waits:
                self.poll.register(self.sink, select.EPOLLOUT)
            else:
                self.poll.unregister(self.sink)

    def _pause(self):
        paused = len(self.pending) >= HIGH or self.paused and len(self.pending) > LOW
        if paused != self.paused:
            self.paused = paused
            if self.remove:
                self.poll.modify(self.source, 0 if paused else select.EPOLLIN)


def _address(text):
    address, _, port = text.rpartition(':')
    return address, int(port)


def main(argv):
    """One connection after the other."""
    (address, port), server = _address(argv[1]), _address(argv[2])
    # tpbench has relays listen on the next port too, which serves no transfer here.
    with (socket.create_server((address, port)) as listener,
          socket.create_server((address, port + 1))):
        while True:
            source, _ = listener.accept()
            try:
                with source, socket.create_connection(server) as sink:
                    source.setblocking(False)
                    sink.setblocking(False)
                    Direction(source, sink, argv[3] == 'remove').run()
            except ConnectionError:
                pass


if __name__ == '__main__':
    main(sys.argv)
