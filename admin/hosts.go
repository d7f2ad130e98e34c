package admin

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// hosts are the names by which clients may ask for the server.
//
// A browser lets a page read what comes from the page's own host. The owner of a name can
// make it point here once his page is loaded (DNS rebinding), and the browser would then
// read the admin end for him; but it says the name in the Host header. An IP address
// cannot be made to point elsewhere, so every address is accepted, also one that a port
// forwarding has in front of this host.
type hosts map[string]bool

func knownHosts(names []string) hosts {
	known := hosts{"localhost": true}
	if own, err := os.Hostname(); err == nil {
		known[hostName(own)] = true
	}
	for _, name := range names {
		known[hostName(name)] = true
	}
	return known
}

func (h hosts) allow(r *http.Request) bool {
	if r.Host == "" { // HTTP/1.0; browsers always name the host
		return true
	}
	if _, ok := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); ok {
		return true // no name points there
	}
	name := hostName(r.Host)
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return h[name]
}

// hostName is the name or address of a Host header, without the port, in the form in
// which names are compared.
func hostName(host string) string {
	if name, port, err := net.SplitHostPort(host); err == nil && strings.Trim(port, "0123456789") == "" {
		host = name
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
