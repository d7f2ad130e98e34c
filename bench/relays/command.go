package relays

import "strings"

const commandName = "command"

// CommandHelp is what --help says of the flag --relay-command.
const CommandHelp = "A relay of your own, as the relay \"command\": a shell command that accepts TPROXY connections at $LISTEN (ADDR:PORT) and connects " +
	"to the original destination from the client's address. With the prefix forward: clients connect to $LISTEN, and the relay connects to $SERVER; " +
	"the port after $LISTEN goes to the port after $SERVER. With the prefix redirect: REDIRECT rules divert the connections."

// OfCommand is the user's own relay: command runs in a shell (sh -c), in the foreground, with the
// environment of tpbench and
//
//	LISTEN   the address and port to listen on, 127.0.0.1:9091
//	SERVER   the address and port of the server, 10.77.2.3:5201
//
// By default it gets connections from TPROXY rules: it sets IP_TRANSPARENT on its listener, finds
// the original destination with getsockname (the server's port or the next one), and binds its
// outgoing connection to the client's address and port. With "forward:" before the command, clients
// connect to LISTEN and to the next port, and the relay connects to SERVER and to its next port.
// With "redirect:", REDIRECT rules divert the connections, and SO_ORIGINAL_DST has their
// destination.
//
// It is ready when it, or a process that it started, listens. SIGTERM ends it, then SIGKILL, and
// with it all processes that it started.
func OfCommand(command string) Relay {
	way := Transparent
	if rest, ok := strings.CutPrefix(command, "forward:"); ok {
		way, command = Forward, rest
	} else if rest, ok := strings.CutPrefix(command, "redirect:"); ok {
		way, command = Redirect, rest
	}
	command = strings.TrimSpace(command)
	return Relay{
		Name:   commandName,
		Title:  command,
		Advice: "As given on the command line.",
		Way:    way,

		Default: true,
		recipe: func(s site) ([]process, error) {
			p := process{
				args:  []string{"sh", "-c", command},
				env:   []string{"LISTEN=" + s.listen.String(), "SERVER=" + s.Server.String()},
				ports: []uint16{s.listen.Port()},
				forks: true,
			}
			if way == Forward {
				p.ports = append(p.ports, next(s.listen).Port())
			}
			return []process{p}, nil
		},
	}
}
