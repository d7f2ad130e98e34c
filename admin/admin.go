// Package admin serves an engine's metrics and pairs over HTTP, and a page that shows both live.
// The package has no stability promise yet.
//
//	server := admin.Serve(listener, engine, admin.Options{})
//	defer server.Stop(time.Second)
//
//	GET /         the live page
//	GET /metrics  for Prometheus
//	GET /stats    engine.Stats as JSON
//	GET /pairs    live pairs as a JSON array; ?limit=N (default 1,000)
//	GET /healthz  "ok"
//
// It changes nothing. It has no password and shows clients' addresses: listen on loopback, or on
// an address that only operators can reach. Requests must name the host by an IP address,
// localhost, the name of this machine, or one of Options.Hosts. Other names are refused with
// status 421.
package admin

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tprelay/tprelay/engine"
)

// Source provides the statistics and the pairs: an *engine.Engine.
type Source interface {
	Stats() engine.Stats
	Pairs(func(engine.PairInfo) bool) error
}

// pairLimit is the number of pairs that /pairs lists without ?limit.
const pairLimit = 1000

// Options of a Handler and a Server. The zero value works.
type Options struct {
	// Hosts are host names that requests may use, in addition to IP addresses, localhost and
	// the name of this machine. Default: none.
	Hosts []string
	// Metrics are served in addition to those of the engine. Default: none.
	Metrics []prometheus.Collector
	// Logger gets failures. Default: nothing is logged.
	Logger *slog.Logger
}

// pageSource has TILES where the page gets the numbers that it shows.
//
//go:embed page.html
var pageSource []byte

// Handler serves s. It limits neither connections nor their duration; Serve does.
func Handler(s Source, o Options) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(Collector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(o.Metrics...)

	page := bytes.Replace(pageSource, []byte("TILES"), tiles(), 1)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Stats()) })
	mux.HandleFunc("GET /pairs", func(w http.ResponseWriter, r *http.Request) { listPairs(w, r, s) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'")
		_, _ = w.Write(page) // the client may have disconnected
	})
	return guard(mux, knownHosts(o.Hosts))
}

// guard refuses requests that do not name a known host.
func guard(next http.Handler, known hosts) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !known.allow(r) {
			http.Error(w, fmt.Sprintf("%q is not a known name of this host: use an IP address, or allow the name (tprelay run --admin-host)",
				r.Host), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func listPairs(w http.ResponseWriter, r *http.Request, s Source) {
	limit := pairLimit
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			http.Error(w, fmt.Sprintf("limit %q: want a number, 0 or more", text), http.StatusBadRequest)
			return
		}
		limit = n
	}
	pairs := []engine.PairInfo{}
	if limit > 0 {
		err := s.Pairs(func(i engine.PairInfo) bool {
			pairs = append(pairs, i)
			return len(pairs) < limit
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	reply(w, pairs)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only if the client has disconnected
}
