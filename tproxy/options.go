package tproxy

import (
	"net"
	"time"

	"github.com/tprelay/tprelay/internal/sock"
)

// ConnOptions are socket options of connections. The zero value leaves the kernel's own settings,
// with keep-alive on. Besides them, every connection of this package has TCP_NODELAY, SO_OOBINLINE
// (urgent data stays in the stream) and SO_LINGER of 0 s: closing it sends an RST. Take SO_LINGER
// back before you close a connection in order.
type ConnOptions struct {
	// UserTimeout is how long sent data may stay unacknowledged (TCP_USER_TIMEOUT), from 1 ms to
	// 596 h. Default: 0, the kernel's own rule (net.ipv4.tcp_retries2). Negative: the same.
	UserTimeout time.Duration
	// KeepAlive says when the kernel probes whether a silent connection's other end is still there.
	// Default: the zero value, which is on with the kernel's own settings. A negative Idle alone
	// turns keep-alive off. Otherwise Enable must be set with any of the others:
	//
	//   - Idle is how long the connection must be silent before the first probe (TCP_KEEPIDLE).
	//     Default: 0, the kernel's own (net.ipv4.tcp_keepalive_time, two hours).
	//   - Interval is the time between two probes (TCP_KEEPINTVL). Default: 0, the kernel's own
	//     (net.ipv4.tcp_keepalive_intvl, 75 s), but no more than Idle where that is set.
	//   - Count is how many probes without an answer end the connection (TCP_KEEPCNT), at most 127.
	//     Default: 0, the kernel's own (net.ipv4.tcp_keepalive_probes, 9).
	//
	// The kernel counts in whole seconds, up to 32,767; a part of a second counts as a whole one.
	KeepAlive net.KeepAliveConfig
}

func (o ConnOptions) sock() sock.ConnOptions { return sock.ConnOptions(o) }
