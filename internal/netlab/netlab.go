// Package netlab builds three hosts, h1 - h2 - h3, on one machine, from network namespaces and veth
// pairs (or TAP devices, if only these can delay): a client, a gateway and a server, with a
// bottleneck between them if wanted. The tests, the benchmark and the demo run on it.
//
//	h1 eth0 ------------- left h2 right ------------- eth0 h3
//	10.77.1.1      10.77.1.2     10.77.2.2      10.77.2.3
//	fd77:1::1      fd77:1::2     fd77:2::2      fd77:2::3
//
// h2 forwards IPv4 and IPv6, and is the default route of h1 and of h3.
//
// A complete use, for root and for an ordinary user alike:
//
//	func main() {
//		if err := netlab.Enter(); err != nil { // first: may start the program anew in a user namespace
//			log.Fatal(err)
//		}
//		lab, err := netlab.New(netlab.Config{
//			Bottleneck: netlab.Link{Rate: 6_000_000}, // bit/s, both directions, 100 ms of queue
//		})
//		if err != nil {
//			log.Fatal(err)
//		}
//		defer lab.Close()
//
//		ctx := context.Background()
//		server, err := lab.H3.Listen("tcp", "10.77.2.3:8080")
//		if err != nil {
//			log.Fatal(err)
//		}
//		go http.Serve(server, http.FileServer(http.Dir(".")))
//
//		out, err := lab.H1.Command(ctx, "curl", "-s", "http://10.77.2.3:8080/").Output()
//		if err != nil {
//			log.Fatal(err)
//		}
//		os.Stdout.Write(out)
//	}
//
// Nothing is left behind, even by kill -9: the namespaces have no names, they
// live as long as a thread or a descriptor of this process holds them, and the
// interfaces die with them; TAP devices die with this process; programs started
// with [Host.Command] are killed by the kernel when this process dies. What those
// programs fork survives a kill -9 of this process unless [Cmd.OwnPIDs] is set;
// [Lab.Close] finds and kills it in either case. The directory of [Lab.TempDir]
// is removed by Close only.
package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// ErrClosed is returned by all methods of a lab that was closed.
var ErrClosed = errors.New("the lab is closed")

// Config says what to build. The zero value is three hosts at full speed.
type Config struct {
	// Access shapes the link h1-h2, Bottleneck the link h2-h3, each in both
	// directions. The zero Link is not shaped.
	Access, Bottleneck Link

	// MSS is the most that a TCP segment carries, in bytes, on both links and
	// for both address families: hosts announce it in their SYNs (the advmss
	// of their routes). Segments shrink further by TCP options: 12 bytes with
	// timestamps. Between 256 and 65,000. Default 0: by the MTU, which is 1,500.
	//
	// It is not done with a small MTU, because Linux switches IPv6 off on
	// interfaces with an MTU below 1,280.
	MSS int

	// NetemOnly has [New] fail with [ErrNoNetem] where the kernel has no netem
	// for a Delay, instead of delaying in this process: for measurements whose
	// figures must not have its CPU time in them. Default: false.
	NetemOnly bool

	alwaysLine bool // for tests: also where the kernel has netem
}

// Lab is three hosts. Its methods may be called from any goroutine.
type Lab struct {
	// H1 is the client, H2 the gateway, H3 the server.
	H1, H2, H3 *Host

	ctx    context.Context // ends when Close begins; commands die with it
	cancel context.CancelFunc
	lines  []*line // fixed once built

	attached bool // the hosts are somebody else's

	mu      sync.Mutex
	closed  bool
	running map[*Cmd]struct{}
	tempDir string

	closeOnce sync.Once
	closeErr  error
}

// New builds a lab. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN, which [Enter]
// sees to. The error is [ErrNoNetem] where a Delay was asked for and can be had
// neither from the kernel nor from this process (see [Link]); nothing is left
// behind then, nor on any other error.
func New(cfg Config) (*Lab, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("netlab: %w", err)
	}
	lab := &Lab{running: map[*Cmd]struct{}{}}
	lab.ctx, lab.cancel = context.WithCancel(context.Background())
	if err := lab.build(cfg); err != nil {
		lab.Close()
		return nil, fmt.Errorf("netlab: %w", err)
	}
	return lab, nil
}

func (cfg Config) check() error {
	if cfg.MSS != 0 && (cfg.MSS < 256 || cfg.MSS > 65000) {
		return fmt.Errorf("MSS %d: must be 0 or between 256 and 65000", cfg.MSS)
	}
	if err := cfg.Access.check(); err != nil {
		return fmt.Errorf("access link: %w", err)
	}
	if err := cfg.Bottleneck.check(); err != nil {
		return fmt.Errorf("bottleneck link: %w", err)
	}
	return nil
}

// hosts returns those hosts that exist, which is not all when New failed.
func (lab *Lab) hosts() []*Host {
	var hosts []*Host
	for _, h := range []*Host{lab.H1, lab.H2, lab.H3} {
		if h != nil {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// TempDir returns a directory for the files of programs in the lab. It is made
// at the first call and removed by Close.
func (lab *Lab) TempDir() (string, error) {
	lab.mu.Lock()
	defer lab.mu.Unlock()
	if lab.closed {
		return "", fmt.Errorf("netlab: %w", ErrClosed)
	}
	if lab.tempDir == "" {
		dir, err := os.MkdirTemp("", "netlab-")
		if err != nil {
			return "", fmt.Errorf("netlab: %w", err)
		}
		lab.tempDir = dir
	}
	return lab.tempDir, nil
}

// Close kills and awaits the programs that run in the lab, ends its delay lines
// and the threads of the hosts, and gives the namespaces up. Connections and listeners made with
// Dial and Listen belong to the caller, who closes them; until then the kernel
// keeps their namespace. Close is idempotent: further calls return what the
// first returned.
func (lab *Lab) Close() error {
	lab.closeOnce.Do(func() { lab.closeErr = lab.close() })
	return lab.closeErr
}

func (lab *Lab) close() error {
	lab.mu.Lock()
	lab.closed = true
	var running []*Cmd
	for c := range lab.running {
		running = append(running, c)
	}
	lab.mu.Unlock()

	lab.cancel()
	// Descendants too, at once: programs are not over as long as somebody holds
	// their outputs.
	errs := []error{lab.killInside()}
	for _, c := range running {
		<-c.done
	}
	// Once more for what was just being forked. Only then may the threads end: a
	// program is killed by the kernel when the thread that forked it does, and
	// we would rather have waited for it.
	errs = append(errs, lab.killInside())
	for _, l := range lab.lines {
		errs = append(errs, l.close())
	}
	for _, h := range lab.hosts() {
		errs = append(errs, h.close())
	}
	if lab.tempDir != "" {
		errs = append(errs, os.RemoveAll(lab.tempDir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("netlab: close: %w", err)
	}
	return nil
}
