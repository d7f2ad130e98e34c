package netlab

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Names of the interfaces: Edge on h1 and on h3, Left (toward h1) and Right
// (toward h3) on h2.
const (
	Edge  = "eth0"
	Left  = "left"
	Right = "right"
)

// Iface is a network interface of a host. Its prefixes hold the address and
// the length: 10.77.1.1/24.
type Iface struct {
	Name             string
	Addr4, Addr6     netip.Addr
	Prefix4, Prefix6 netip.Prefix
}

// Host is a network namespace with a thread in it. Its methods may be called
// from any goroutine.
type Host struct {
	// Name is "h1", "h2" or "h3".
	Name string
	// Addr4 and Addr6 are the addresses of the first interface: eth0, or left on h2.
	Addr4, Addr6 netip.Addr
	// Ifaces are the interfaces: eth0; on h2, left and right, of which the first leads to h1.
	Ifaces []Iface

	lab    *Lab
	thread *thread
	inode  uint64          // of the namespace: its identity
	ways   map[string]*way // out of interfaces that are the end of a delay line; fixed once built

	mu sync.RWMutex // held for reading while ns is in use
	ns int          // descriptor of the namespace; -1 once closed
}

// newHost makes a host of the network namespace that enter puts the calling thread in.
func newHost(lab *Lab, name string, enter func() error) (*Host, error) {
	h := &Host{Name: name, lab: lab, ns: -1, ways: map[string]*way{}}
	thread, err := startThread(func() error {
		if err := enter(); err != nil {
			return err
		}
		ns, err := openNetns()
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(ns, &st); err != nil {
			unix.Close(ns)
			return fmt.Errorf("stat of the network namespace: %w", err)
		}
		h.ns, h.inode = ns, st.Ino
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	h.thread = thread
	return h, nil
}

// newNetns moves the calling thread into a new network namespace.
func newNetns() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("new network namespace: %w; call netlab.Enter first, or run as root", err)
	}
	return nil
}

// openNetns opens the network namespace of the calling thread.
func openNetns() (int, error) {
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the thread's network namespace: %w", err)
	}
	return ns, nil
}

// Iface returns the interface of that name, or a zero Iface if there is none.
func (h *Host) Iface(name string) Iface {
	for _, i := range h.Ifaces {
		if i.Name == name {
			return i
		}
	}
	return Iface{}
}

// Do runs fn on the host's thread and returns its error as it is, or
// [ErrClosed]. Sockets, netlink requests and accesses to /proc/sys/net that fn
// itself makes belong to the host; those of goroutines that it starts do not.
// (/proc/net is the first thread's: read /proc/thread-self/net.)
//
// There is one thread, for which other callers wait: fn should be short. It must not end its
// goroutine (t.Fatal), which would end the thread. For longer work see [Host.Enter].
func (h *Host) Do(fn func() error) error {
	return h.thread.do(fn)
}

// Enter puts the calling OS thread into the host's network namespace, for good.
// The caller must lock the thread to its goroutine and never unlock it (the thread ends with the
// goroutine): otherwise other goroutines run in the namespace.
// It must not be the first thread of the process, which does not end and would
// keep the namespace; [Enter], called first in main, keeps that one for main.
// It fits engine.Options.ThreadInit. The error is [ErrClosed] after Close.
func (h *Host) Enter() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.ns < 0 {
		return fmt.Errorf("netlab: %s: %w", h.Name, ErrClosed)
	}
	if err := unix.Setns(h.ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("netlab: enter %s: %w", h.Name, err)
	}
	return nil
}

// visit runs fn in the host's namespace on the calling goroutine's own thread,
// and brings the thread back: for what may block, which Do must not.
func (h *Host) visit(fn func() error) error {
	runtime.LockOSThread()
	home, err := openNetns()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer unix.Close(home)
	if err := h.Enter(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = fn()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		// The thread stays locked: no other goroutine may find itself in there.
		return fmt.Errorf("netlab: leave %s: %w", h.Name, back)
	}
	runtime.UnlockOSThread()
	return err
}

// SetSysctl sets a kernel parameter of the host, named as in sysctl(8):
// "net.ipv4.ip_forward". Only those below net. are the host's own.
func (h *Host) SetSysctl(name, value string) error {
	err := h.Do(func() error { return os.WriteFile(sysctlPath(name), []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("netlab: %s: set %s to %s: %w", h.Name, name, value, err)
	}
	return nil
}

// Sysctl returns a kernel parameter of the host, without the newline.
func (h *Host) Sysctl(name string) (string, error) {
	var value string
	err := h.Do(func() (err error) {
		value, err = Sysctl(name)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("netlab: %s: read %s: %w", h.Name, name, err)
	}
	return value, nil
}

// Sysctl returns a kernel parameter where we are, in no host, without the newline.
func Sysctl(name string) (string, error) {
	b, err := os.ReadFile(sysctlPath(name))
	return strings.TrimSpace(string(b)), err
}

func sysctlPath(name string) string {
	return "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
}

func (h *Host) close() error {
	err := h.thread.end()
	h.mu.Lock()
	defer h.mu.Unlock()
	unix.Close(h.ns)
	h.ns = -1
	return err
}
