package rules

import (
	"net/netip"
	"strings"
)

// ManagementFromEnv reads the connection over which the operator is logged in
// from the value of SSH_CONNECTION ("client port server port"), which sshd sets
// (and sudo -E keeps). It gives nil for anything else.
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
	// sshd writes the zone of link-local addresses; rules cannot name it.
	return netip.AddrPortFrom(a.Unmap().WithZone(""), n), errA == nil && errN == nil
}
