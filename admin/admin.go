// Package admin shows an engine over HTTP: its metrics, its pairs, and a page that
// shows both live.
//
//	http.Serve(listener, admin.Handler(engine))
//
//	GET /         the live page
//	GET /metrics  for Prometheus
//	GET /stats    engine.Stats as JSON
//	GET /pairs    the pairs that live, as a JSON array; ?limit=N (default 1,000)
//	GET /healthz  "ok"
//
// It changes nothing, and asks nobody for a password: listen on loopback, or where
// only operators come. Addresses of clients are on it.
package admin

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tprelay/tprelay/engine"
)

// Source is what is shown: an *engine.Engine.
type Source interface {
	Stats() engine.Stats
	Pairs(func(engine.PairInfo) bool) error
}

// pairLimit is how many pairs /pairs lists unless it is told otherwise.
const pairLimit = 1000

//go:embed page.html
var page []byte

// Handler serves s.
func Handler(s Source) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Stats()) })
	mux.HandleFunc("GET /pairs", func(w http.ResponseWriter, r *http.Request) { listPairs(w, r, s) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'")
		_, _ = w.Write(page) // whoever asked may have gone
	})
	return mux
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
		s.Pairs(func(i engine.PairInfo) bool {
			pairs = append(pairs, i)
			return len(pairs) < limit
		})
	}
	reply(w, pairs)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only when whoever asked has gone
}
