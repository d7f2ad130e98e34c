package admin

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// hosts is the set of host names that requests may use.
//
// A browser lets a page read answers from the page's own host. The owner of a host name can
// change its address to this host's after the page is loaded (DNS rebinding), and the page could
// then read the admin server. But the browser sends the name in the Host header. An IP address
// cannot be redirected, so every address is accepted, also that of a host which forwards the
// port.
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
		return true // a Unix socket has no host name
	}
	name := hostName(r.Host)
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return h[name]
}

// hostName returns the name or address in a Host header, without the port, in lower case and
// without a trailing dot.
func hostName(host string) string {
	if name, port, err := net.SplitHostPort(host); err == nil && strings.Trim(port, "0123456789") == "" {
		host = name
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
