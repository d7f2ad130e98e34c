package netlab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// SSHD is a running ssh server, with keys made for it and for its one user, root.
type SSHD struct {
	*Cmd
	dir  string
	port uint16
}

// SSHD starts an sshd on the port, over IPv4 and IPv6, and returns when it
// listens. ctx bounds the wait and the server's life. The error is [ErrNotRoot]
// in the user namespace of Enter.
func (h *Host) SSHD(ctx context.Context, port uint16) (*SSHD, error) {
	if err := OtherUsers(); err != nil {
		return nil, fmt.Errorf("netlab: sshd: %w", err)
	}
	path, err := program("sshd")
	if err != nil {
		return nil, err
	}
	dir, err := h.programDir("sshd")
	if err != nil {
		return nil, err
	}
	s := &SSHD{dir: dir, port: port}
	if err := s.makeKeys(ctx); err != nil {
		return nil, err
	}
	conf := strings.NewReplacer("DIR", dir, "PORT", strconv.Itoa(int(port))).Replace(sshdConf)
	if err := os.WriteFile(s.file("sshd_config"), []byte(conf), 0o600); err != nil {
		return nil, fmt.Errorf("netlab: sshd: %w", err)
	}
	// sshd wants /run/sshd, which exists only where the service has run. It gets
	// a /run of its own, so that the machine's stays as it is.
	s.Cmd = h.Command(ctx, "sh", "-c",
		`mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec "$0" "$@"`,
		path, "-D", "-e", "-f", s.file("sshd_config"))
	s.OwnPIDs = true
	if err := s.startDaemon(ctx, port); err != nil {
		return nil, err
	}
	return s, nil
}

// The user's key is looked for in our directory, which StrictModes would find
// too open if it lies below a world-writable one.
const sshdConf = `
Port PORT
AddressFamily any
HostKey DIR/host_key
AuthorizedKeysFile DIR/user_key.pub
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
PrintLastLog no
MaxStartups 1000
Subsystem sftp internal-sftp
`

func (s *SSHD) file(name string) string { return filepath.Join(s.dir, name) }

func (s *SSHD) makeKeys(ctx context.Context) error {
	for _, name := range []string{"host_key", "user_key"} {
		out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "netlab", "-f", s.file(name)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("netlab: ssh-keygen: %w: %s", err, strings.TrimSpace(string(out)))
		}
	}
	key, err := os.ReadFile(s.file("host_key.pub"))
	if err != nil {
		return fmt.Errorf("netlab: sshd: %w", err)
	}
	// Known under any address, so that clients insist on this key wherever they
	// believe the server to be.
	if err := os.WriteFile(s.file("known_hosts"), append([]byte("* "), key...), 0o600); err != nil {
		return fmt.Errorf("netlab: sshd: %w", err)
	}
	return nil
}

// SSH returns an ssh client, to be run in the host, that logs in to the server
// at addr and runs the command there. It fails rather than ask, and rather than
// accept another server's key.
func (s *SSHD) SSH(ctx context.Context, from *Host, addr netip.Addr, command string) *Cmd {
	return from.Command(ctx, "ssh", "-F", "none", "-q", "-p", strconv.Itoa(int(s.port)),
		"-i", s.file("user_key"), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+s.file("known_hosts"), "-o", "GlobalKnownHostsFile=none",
		"root@"+addr.String(), command)
}
