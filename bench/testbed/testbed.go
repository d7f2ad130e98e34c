// Package testbed is what one run of a comparison stands on: three hosts in network namespaces, a
// relay on the one in the middle, and client and server processes at both ends.
//
//	client workers        relay          server workers
//	    h1 ---------------- h2 ---------------- h3
//
// Each run has a testbed of its own: ports in TIME_WAIT, grown buffers and warm caches of one run
// are not there in the next. All of it shares one machine.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/internal/netlab"
)

const (
	relayPort = 9091
	// ServerPort is where servers listen for requests. Streams use the next port.
	ServerPort = 5201
)

// Config says what a testbed consists of.
type Config struct {
	// Self and TPRelay are the paths of tpbench and of tprelay.
	Self, TPRelay string
	// Relay is what runs on h2.
	Relay relays.Relay
	// Congestion is the congestion control of the hosts. Default: the machine's.
	Congestion string
	// Processes of the relay share its port; there are as many servers, each at an address of its
	// own. Default: 1.
	Processes int
	// External says that there are no servers: a generator such as iperf3 brings its own.
	External bool
	// Processors bounds the CPUs of each server and client, see worker.Job. Default: 0, all.
	Processors int
	// WarmUp is the time between the start of clients and the window, and Window its length.
	WarmUp, Window time.Duration
}

// Testbed is three hosts, a relay, servers and clients.
type Testbed struct {
	Config
	Lab     *netlab.Lab
	Running *relays.Running
	Servers []*worker.Worker
	Clients []*worker.Worker
	// Warnings are what makes the figures doubtful.
	Warnings []string
	// Others is the part of the machine that other programs used in the window, and Stolen the part
	// that the host of this virtual machine did not give it.
	Others, Stolen float64
	// Before and After are what the relay's processes occupied, in scenarios that measure it.
	Before, After Footprint
	// Began is when the testbed was made.
	Began time.Time
}

// New returns a testbed that is still to be set up.
func New(c Config) *Testbed {
	c.Processes = max(c.Processes, 1)
	return &Testbed{Config: c, Began: time.Now()}
}

// SetUp sets everything up but the clients. Close cleans up, also after an error.
func (tb *Testbed) SetUp(ctx context.Context) (err error) {
	if tb.Lab, err = netlab.New(netlab.Config{}); err != nil {
		return err
	}
	if err := tb.setCongestion(); err != nil {
		return err
	}
	if !tb.External {
		for i := range tb.Processes {
			at, err := tb.addServerAddress(i)
			if err != nil {
				return err
			}
			server, err := worker.Start(ctx, tb.Lab.H3, tb.Self, worker.Job{Kind: worker.Serve, Address: at, Processors: tb.Processors})
			if err != nil {
				return err
			}
			tb.Servers = append(tb.Servers, server)
		}
	}
	tb.Running, err = tb.Relay.Start(ctx, relays.Env{
		Lab: tb.Lab, Self: tb.Self, TPRelay: tb.TPRelay, Processes: tb.Processes,
		Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), relayPort), Server: tb.serverAddress(0),
	})
	return err
}

// StartClient starts a client worker on h1, which connects to the relay or through it. It uses the
// job's address if it has one.
func (tb *Testbed) StartClient(ctx context.Context, job worker.Job) error {
	if !job.Address.IsValid() {
		job.Address = tb.Running.Target()
	}
	job.Processors = tb.Processors
	w, err := worker.Start(ctx, tb.Lab.H1, tb.Self, job)
	if err == nil {
		tb.Clients = append(tb.Clients, w)
	}
	return err
}

// Prime makes one connection per server through the relay, with one request, and closes it: what a
// relay allocates at its first connection is not a cost of a pair. Then it notes in Before what the
// relay's processes occupy.
func (tb *Testbed) Prime(ctx context.Context) (err error) {
	for i := range tb.Servers {
		at, err := tb.Target(i)
		if err != nil {
			return err
		}
		if err := tb.once(ctx, at); err != nil {
			return err
		}
	}
	tb.Before, err = tb.Footprint()
	return err
}

func (tb *Testbed) once(ctx context.Context, at netip.AddrPort) error {
	w, err := worker.Start(ctx, tb.Lab.H1, tb.Self, worker.Job{Kind: worker.Idle, Address: at})
	if err != nil {
		return err
	}
	defer w.Stop()
	from := time.Now().Add(SettleTime)
	if err := w.Measure(worker.Window{From: from, To: from.Add(SettleTime)}); err != nil {
		return err
	}
	r, err := w.Result()
	if err == nil && r.Errors > 0 {
		err = fmt.Errorf("the first connection: %s", r.Error)
	}
	return err
}

// Target is where clients connect to for the server with that number.
func (tb *Testbed) Target(server int) (netip.AddrPort, error) {
	if server == 0 {
		return tb.Running.Target(), nil
	}
	if tb.Running.Target() != tb.serverAddress(0) {
		return netip.AddrPort{}, fmt.Errorf("%s: clients connect to the relay itself, which knows one server only", tb.Relay.Name)
	}
	return tb.serverAddress(server), nil
}

// serverAddress is where the server with that number listens.
func (tb *Testbed) serverAddress(server int) netip.AddrPort {
	address := tb.Lab.H3.Addr4
	for range server {
		address = address.Next()
	}
	return netip.AddrPortFrom(address, ServerPort)
}

// addServerAddress gives h3 the address of the server with that number.
func (tb *Testbed) addServerAddress(server int) (netip.AddrPort, error) {
	at := tb.serverAddress(server)
	if server == 0 {
		return at, nil
	}
	h3 := tb.Lab.H3
	err := h3.Do(func() error {
		link, err := netlink.LinkByName(netlab.Edge)
		if err != nil {
			return err
		}
		mask := net.CIDRMask(h3.Iface(netlab.Edge).Prefix4.Bits(), 32)
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: at.Addr().AsSlice(), Mask: mask}})
	})
	if err != nil {
		return at, fmt.Errorf("address %v on h3: %w", at.Addr(), err)
	}
	return at, nil
}

// Cause explains an error: by the end of ctx or of the relay, if it was that.
func (tb *Testbed) Cause(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case tb.Running != nil && tb.Running.Err() != nil:
		return tb.Running.Err()
	}
	return err
}

// Close takes everything down. The error says so if the relay had ended by itself.
func (tb *Testbed) Close() error {
	var errs []error
	for _, w := range tb.Clients {
		errs = append(errs, w.Stop())
	}
	if tb.Running != nil {
		errs = append(errs, tb.Running.Stop())
	}
	for _, w := range tb.Servers {
		errs = append(errs, w.Stop())
	}
	if tb.Lab != nil {
		errs = append(errs, tb.Lab.Close())
	}
	return errors.Join(errs...)
}

// Warn adds a warning.
func (tb *Testbed) Warn(format string, args ...any) {
	tb.Warnings = append(tb.Warnings, fmt.Sprintf(format, args...))
}
