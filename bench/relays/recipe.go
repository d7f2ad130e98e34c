package relays

import (
	"context"
	"net/netip"
	"os"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// site is what a recipe works with.
type site struct {
	Env
	way    Way            // how connections come to the relay
	listen netip.AddrPort // where the relay is to listen
	dir    string         // for its files; removed when it stops
}

// process is one process of a relay, to be started.
type process struct {
	args []string
	env  []string // added to that of this process
	// ports are those of its listeners: it is ready when it, or a process that it started, listens
	// on all of them.
	ports []uint16
	// forks: it leaves processes behind when it is killed, and gets a PID namespace with which they
	// end.
	forks bool
	// socket: it inherits its listening socket, as from systemd, so that several processes can
	// share the port of a relay that does not share it by itself. It counts as listening at once;
	// earlier connections wait in the backlog.
	socket bool
}

// recipe returns the processes of a relay.
type recipe func(site) ([]process, error)

// listenAt is where a relay is to listen.
func (env Env) listenAt(way Way) netip.AddrPort {
	if way == Transparent {
		return env.Listen
	}
	return netip.AddrPortFrom(env.Lab.H2.Addr4, env.Listen.Port())
}

// forwarded returns the two addresses on which a Forward relay listens, and the server of each.
func (s site) forwarded() [2]struct{ listen, server netip.AddrPort } {
	return [2]struct{ listen, server netip.AddrPort }{
		{s.listen, s.Server},
		{next(s.listen), next(s.Server)},
	}
}

// next is the same address with the next port.
func next(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }

// run starts the process on h2.
func (s site) run(ctx context.Context, p process) (*netlab.Cmd, error) {
	if p.socket {
		// The process id is the shell's, which becomes the relay.
		p.args = append([]string{"sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"`}, p.args...)
	}
	cmd := s.Lab.H2.Command(ctx, p.args[0], p.args[1:]...)
	cmd.OwnPIDs = p.forks
	if p.env != nil {
		cmd.Env = append(os.Environ(), p.env...)
	}
	if p.socket {
		var fd int
		err := s.Lab.H2.Do(func() (err error) {
			fd, err = tproxy.Listen(s.listen, tproxy.ListenOptions{Transparent: true, ReusePort: true})
			return err
		})
		if err != nil {
			return nil, err
		}
		socket := os.NewFile(uintptr(fd), "listener")
		defer socket.Close()
		cmd.ExtraFiles = []*os.File{socket}
	}
	return cmd, cmd.Start()
}
