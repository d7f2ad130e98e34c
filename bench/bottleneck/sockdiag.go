package bottleneck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TCP is what the kernel knows about one end of a connection. Counters start with the
// connection. Fields that an old kernel does not report are 0.
type TCP struct {
	CwndPackets    uint32 `json:"cwnd_packets"`
	CwndBytes      uint64 `json:"cwnd_bytes"`
	RTT            uint32 `json:"rtt_us"` // smoothed
	MinRTT         uint32 `json:"min_rtt_us"`
	UnackedPackets uint32 `json:"unacked_packets"`      // sent, not yet acknowledged
	NotSent        uint32 `json:"notsent_bytes"`        // accepted from the program, not yet sent
	SendQueue      uint32 `json:"send_queue_bytes"`     // the sum of the two
	Unread         uint32 `json:"unread_bytes"`         // received, not yet taken by the program
	ReceiveWindow  uint32 `json:"receive_window_bytes"` // what the other end may send (Linux 6.2)
	PeerWindow     uint32 `json:"peer_window_bytes"`    // what it allows us (Linux 5.4)
	DeliveryRate   uint64 `json:"delivery_bit_per_s"`   // recently
	Busy           uint64 `json:"busy_us"`              // time with something to send
	RwndLimited    uint64 `json:"rwnd_limited_us"`      // the part of it in which the receiver's window was full
	SndbufLimited  uint64 `json:"sndbuf_limited_us"`    // the part of it in which the send buffer was too small
	Retransmitted  uint32 `json:"retransmitted_packets"`
}

// Layout of the messages of sock_diag, <linux/inet_diag.h>.
const (
	sockDiagByFamily = 20
	inetDiagInfo     = 2 // attribute: struct tcp_info
	requestLength    = unix.NLMSG_HDRLEN + 56
	messageLength    = 72 // of the answer, before its attributes
	queuesAt         = 56 // of the receive queue in it, the send queue's follows
	diagPatience     = 2  // seconds; the kernel answers at once
)

// Diag asks the kernel about connections, by netlink. One goroutine may use it at a time.
//
// The message is laid out here because vishvananda/netlink gives tcp_info only for all sockets of a
// host at once, and its TCPInfo ends before the receive window (rcv_wnd).
type Diag struct {
	fd       int
	sequence uint32
	buffer   []byte
}

// OpenDiag opens a Diag for the network namespace of the calling thread; see netlab.Host.Do.
// It needs no privileges.
func OpenDiag() (*Diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", os.NewSyscallError("socket", err))
	}
	// A kernel that does not answer must not block the sampler for ever.
	timeout := unix.Timeval{Sec: diagPatience}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("sock_diag: %w", os.NewSyscallError("setsockopt", err))
	}
	return &Diag{fd: fd, buffer: make([]byte, 8<<10)}, nil
}

// Close closes the netlink socket.
func (d *Diag) Close() error { return unix.Close(d.fd) }

// Look returns what the kernel knows about the local end of the connection to remote. The error
// wraps os.ErrNotExist if there is no such connection.
func (d *Diag) Look(local, remote netip.AddrPort) (*TCP, error) {
	d.sequence++
	request := diagRequest(local, remote, d.sequence)
	fail := func(err error) error { return fmt.Errorf("sock_diag: %v to %v: %w", local, remote, err) }
	if err := unix.Sendto(d.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fail(os.NewSyscallError("sendto", err))
	}
	for {
		n, _, err := unix.Recvfrom(d.fd, d.buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fail(os.NewSyscallError("recvfrom", err))
		}
		answer := d.buffer[:n]
		if len(answer) >= unix.NLMSG_HDRLEN && binary.NativeEndian.Uint32(answer[8:]) != d.sequence {
			continue // the late answer to a request that timed out
		}
		t, err := parseDiag(answer, local, remote)
		if err != nil {
			return nil, fail(err)
		}
		return t, nil
	}
}

// diagRequest asks for one connection, with its tcp_info.
func diagRequest(local, remote netip.AddrPort, sequence uint32) []byte {
	b := make([]byte, requestLength)
	binary.NativeEndian.PutUint32(b, requestLength)
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], sequence)
	r := b[unix.NLMSG_HDRLEN:]
	r[0], r[1], r[2] = unix.AF_INET, unix.IPPROTO_TCP, 1<<(inetDiagInfo-1)
	if local.Addr().Is6() {
		r[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(r[4:], ^uint32(0)) // in any state
	putDiagID(r[8:], local, remote)
	for i := 48; i < 56; i++ {
		r[i] = 0xff // no cookie
	}
	return b
}

// putDiagID writes the two ends, struct inet_diag_sockid.
func putDiagID(b []byte, local, remote netip.AddrPort) {
	binary.BigEndian.PutUint16(b, local.Port())
	binary.BigEndian.PutUint16(b[2:], remote.Port())
	copy(b[4:20], local.Addr().AsSlice())
	copy(b[20:36], remote.Addr().AsSlice())
}

var errDiagAnswer = errors.New("the kernel's answer is malformed")

// parseDiag reads the answer.
func parseDiag(b []byte, local, remote netip.AddrPort) (*TCP, error) {
	if len(b) < unix.NLMSG_HDRLEN+4 {
		return nil, errDiagAnswer
	}
	kind, b := binary.NativeEndian.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:]
	if kind == unix.NLMSG_ERROR {
		return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(b)))
	}
	if kind != sockDiagByFamily || len(b) < messageLength {
		return nil, errDiagAnswer
	}
	// Where there is no such connection, a listener is found instead.
	var id [36]byte
	putDiagID(id[:], local, remote)
	if string(b[4:4+len(id)]) != string(id[:]) {
		return nil, unix.ENOENT
	}
	queues := b[queuesAt:]
	for b = b[messageLength:]; len(b) >= unix.SizeofRtAttr; {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return nil, errDiagAnswer
		}
		if binary.NativeEndian.Uint16(b[2:]) == inetDiagInfo {
			t := parseTCPInfo(b[unix.SizeofRtAttr:length])
			t.Unread, t.SendQueue = binary.NativeEndian.Uint32(queues), binary.NativeEndian.Uint32(queues[4:])
			return t, nil
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return nil, unix.ENOENT // only its TIME_WAIT is left
}

// parseTCPInfo reads a struct tcp_info. Old kernels have only the beginning of it.
func parseTCPInfo(b []byte) *TCP {
	var layout unix.TCPInfo
	u32 := func(at uintptr) uint32 {
		if int(at)+4 > len(b) {
			return 0
		}
		return binary.NativeEndian.Uint32(b[at:])
	}
	u64 := func(at uintptr) uint64 {
		if int(at)+8 > len(b) {
			return 0
		}
		return binary.NativeEndian.Uint64(b[at:])
	}
	t := &TCP{
		CwndPackets:    u32(unsafe.Offsetof(layout.Snd_cwnd)),
		RTT:            u32(unsafe.Offsetof(layout.Rtt)),
		MinRTT:         u32(unsafe.Offsetof(layout.Min_rtt)),
		UnackedPackets: u32(unsafe.Offsetof(layout.Unacked)),
		NotSent:        u32(unsafe.Offsetof(layout.Notsent_bytes)),
		ReceiveWindow:  u32(unsafe.Offsetof(layout.Rcv_wnd)),
		PeerWindow:     u32(unsafe.Offsetof(layout.Snd_wnd)),
		DeliveryRate:   8 * u64(unsafe.Offsetof(layout.Delivery_rate)),
		Busy:           u64(unsafe.Offsetof(layout.Busy_time)),
		RwndLimited:    u64(unsafe.Offsetof(layout.Rwnd_limited)),
		SndbufLimited:  u64(unsafe.Offsetof(layout.Sndbuf_limited)),
		Retransmitted:  u32(unsafe.Offsetof(layout.Total_retrans)),
	}
	t.CwndBytes = uint64(t.CwndPackets) * uint64(u32(unsafe.Offsetof(layout.Snd_mss)))
	return t
}
