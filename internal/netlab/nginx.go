package netlab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Nginx is a running nginx. It serves the files below Root, and takes uploads
// by PUT, which become files there. Requests below /unlogged/ are not logged, and files
// there are kept open: for benchmarks.
type Nginx struct {
	*Cmd
	Root string
	log  string
}

// Access is a line of nginx's access log: one request that was answered.
type Access struct {
	Client        netip.AddrPort // as nginx sees it
	Server        netip.AddrPort // which of its addresses the client came to
	Method, URI   string
	Status        int
	BodySent      int64 // bytes of the response's body
	RequestLength int64 // bytes of the request, its head and body
}

// Nginx starts an nginx on the port, over IPv4 and IPv6, and returns when it
// listens. ctx bounds the wait and the server's life. Its files are in the
// lab's TempDir; root is the directory to be served, and made there if "".
func (h *Host) Nginx(ctx context.Context, port uint16, root string) (*Nginx, error) {
	path, err := program("nginx")
	if err != nil {
		return nil, err
	}
	dir, err := h.programDir("nginx")
	if err != nil {
		return nil, err
	}
	if root == "" {
		root = filepath.Join(dir, "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			return nil, fmt.Errorf("netlab: nginx: %w", err)
		}
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, fmt.Errorf("netlab: nginx: %w", err)
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := strings.NewReplacer("DIR", dir, "ROOT", root, "PORT", fmt.Sprint(port)).Replace(nginxConf)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("netlab: nginx: %w", err)
	}
	n := &Nginx{
		Cmd:  h.Command(ctx, path, "-e", "stderr", "-p", dir, "-c", conf),
		Root: root,
		log:  filepath.Join(dir, "access.log"),
	}
	if err := n.startDaemon(ctx, port); err != nil {
		return nil, err
	}
	return n, nil
}

// nginxConf makes one process: workers would outlive a kill -9 of their master.
// The user is named because nginx would otherwise give its directories to "nobody", which does not
// exist in a user namespace.
const nginxConf = `
daemon off;
master_process off;
user root root;
pid "DIR/nginx.pid";
error_log stderr warn;
events { worker_connections 16384; }
http {
	log_format access '$remote_addr $remote_port $server_addr $server_port $request_method $request_uri $status $body_bytes_sent $request_length';
	access_log "DIR/access.log" access;
	client_body_temp_path "DIR/body";
	proxy_temp_path "DIR/proxy";
	fastcgi_temp_path "DIR/fastcgi";
	uwsgi_temp_path "DIR/uwsgi";
	scgi_temp_path "DIR/scgi";
	client_max_body_size 0;
	keepalive_requests 1000000000;
	sendfile on;
	tcp_nodelay on;
	server {
		listen PORT backlog=4096;
		listen [::]:PORT ipv6only=on backlog=4096;
		root "ROOT";
		location /unlogged/ {
			access_log off;
			open_file_cache max=64;
		}
		location / {
			dav_methods PUT DELETE;
			create_full_put_path on;
			autoindex on;
		}
	}
}
`

// AccessLog returns the requests that were logged so far. A request is logged
// when its response has been handed to the kernel, so poll for what is expected.
func (n *Nginx) AccessLog() ([]Access, error) {
	b, err := os.ReadFile(n.log)
	if err != nil {
		return nil, fmt.Errorf("netlab: nginx: access log: %w", err)
	}
	// The last line may be half written.
	whole := string(b[:strings.LastIndexByte(string(b), '\n')+1])
	var log []Access
	for line := range strings.Lines(whole) {
		a, err := parseAccess(line)
		if err != nil {
			return log, fmt.Errorf("netlab: nginx: access log: %q: %w", line, err)
		}
		log = append(log, a)
	}
	return log, nil
}

func parseAccess(line string) (Access, error) {
	var a Access
	var client, server string
	var clientPort, serverPort uint16
	_, err := fmt.Sscan(line, &client, &clientPort, &server, &serverPort, &a.Method, &a.URI, &a.Status, &a.BodySent, &a.RequestLength)
	if err != nil {
		return a, err
	}
	clientAddr, err := netip.ParseAddr(client)
	if err != nil {
		return a, err
	}
	serverAddr, err := netip.ParseAddr(server)
	if err != nil {
		return a, err
	}
	a.Client = netip.AddrPortFrom(clientAddr, clientPort)
	a.Server = netip.AddrPortFrom(serverAddr, serverPort)
	return a, nil
}

// programDir makes a directory for one run of a program.
func (h *Host) programDir(name string) (string, error) {
	temp, err := h.lab.TempDir()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(temp, h.Name+"-"+name+"-")
	if err != nil {
		return "", fmt.Errorf("netlab: %s: %w", name, err)
	}
	return dir, nil
}
