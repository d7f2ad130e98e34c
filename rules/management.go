package rules

import (
	"net/netip"
	"strings"
)

// ManagementFromEnv returns the operator's ssh connection from the value of SSH_CONNECTION
// ("client port server port"), which sshd sets and sudo -E keeps. It returns nil for any other
// text.
func ManagementFromEnv(value string) []Flow {
	fields := strings.Fields(value)
	if len(fields) != 4 {
		return nil
	}
	client, okClient := endpoint(fields[0], fields[1])
	server, okServer := endpoint(fields[2], fields[3])
	if !okClient || !okServer || client.Addr().Is4() != server.Addr().Is4() {
		return nil
	}
	return []Flow{{client, server}}
}

func endpoint(addr, port string) (netip.AddrPort, bool) {
	a, errA := netip.ParseAddr(addr)
	n, errN := parsePort(port)
	// sshd includes the zone of link-local addresses, which rules cannot name.
	return netip.AddrPortFrom(a.Unmap().WithZone(""), n), errA == nil && errN == nil
}
