package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	upgrades      = 10
	idlePairs     = 1000
	transferBytes = 1 << 30
)

// stream is a transfer between the two ends of a pair; the last part of it waits until
// finish is closed, so that it lasts as long as a test wants.
type stream struct {
	finish chan struct{}
	sent   chan error
	sums   chan [sha256.Size]byte // of what was sent, and of what came
}

// lastPart is more than the relay and the kernel can have on the way.
const lastPart = 64 << 20

func newStream(from, to *net.TCPConn, size int) *stream {
	s := &stream{make(chan struct{}), make(chan error, 2), make(chan [sha256.Size]byte, 2)}
	go func() {
		random := rand.NewChaCha8([32]byte{byte(size)})
		sum := sha256.New()
		_, err := io.CopyN(io.MultiWriter(from, sum), random, int64(size))
		if err == nil {
			err = from.CloseWrite()
		}
		s.sums <- [sha256.Size]byte(sum.Sum(nil))
		s.sent <- err
	}()
	go func() {
		sum := sha256.New()
		_, err := io.CopyN(sum, &paced{Reader: to}, int64(size-lastPart))
		<-s.finish
		if err == nil {
			_, err = io.Copy(sum, to)
		}
		s.sums <- [sha256.Size]byte(sum.Sum(nil))
		s.sent <- err
	}()
	return s
}

// paced reads slower than the relay can write, so that there is always something on
// the way: about 256 MiB/s.
type paced struct {
	io.Reader
	rest int // until the next pause
}

func (p *paced) Read(b []byte) (int, error) {
	const part = 8 << 20
	if p.rest <= 0 {
		time.Sleep(part * time.Second / (256 << 20)) // 256 MiB/s
		p.rest = part
	}
	n, err := p.Reader.Read(b)
	p.rest -= n
	return n, err
}

func (s *stream) check(t *testing.T, what string) {
	t.Helper()
	close(s.finish)
	for range 2 {
		if err := <-s.sent; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if a, b := <-s.sums, <-s.sums; a != b {
		t.Errorf("%s: what came is not what was sent", what)
	}
}

// poll asks the admin end for something all the time; every request must be answered.
func poll(t *testing.T, url string) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		n := 0
		for {
			select {
			case <-done:
				t.Logf("the admin end answered %d requests", n)
				return
			default:
			}
			r, err := client.Get(url + "metrics")
			if err != nil {
				t.Errorf("the admin end did not answer: %v", err)
				return
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			n++
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

// TestTenUpgradesUnderLoad: a transfer each way and a thousand connections that are
// mostly idle live through ten upgrades in a row; new ones come in all the time, the
// admin end answers, and each connection has its line in the access log.
func TestTenUpgradesUnderLoad(t *testing.T) {
	began := time.Now()
	log := filepath.Join(t.TempDir(), "access.log")
	server := listenHere(t)
	p := follow(watch(t, command(t, forwardTo(server.Addr(), "--access-log", log, "--admin", "127.0.0.1:0")...)))
	url := p.line("admin")["url"].(string)
	address := p.line("listening")["address"]

	var idle [idlePairs][2]*net.TCPConn
	for i := range idle {
		idle[i][0], idle[i][1] = pair(t, address, server)
	}
	client, end := pair(t, address, server)
	up := newStream(client, end, transferBytes)
	client2, end2 := pair(t, address, server)
	down := newStream(end2, client2, transferBytes/4)
	stopPolling := poll(t, url)

	for n := range upgrades {
		if left := p.upgrade()["pairs_left"]; left != 0.0 {
			t.Fatalf("upgrade %d: %v pairs left", n, left)
		}
		for i, ends := range idle {
			pass(t, ends[0], ends[1], fmt.Sprintf("ping %d of %d;", n, i))
			pass(t, ends[1], ends[0], fmt.Sprintf("pong %d of %d;", n, i))
		}
		a, b := pair(t, address, server)
		pass(t, a, b, "new")
		a.CloseWrite()
		b.CloseWrite()
	}
	stopPolling()
	up.check(t, "upload")
	end.CloseWrite()
	down.check(t, "download")
	client2.CloseWrite()
	for _, ends := range idle {
		ends[0].CloseWrite()
		ends[1].CloseWrite()
	}
	if status := p.end(); status != 0 {
		t.Errorf("the last one ended with status %d:\n%s", status, strings.Join(p.seen, "\n"))
	}

	var ids []uint64
	for _, text := range lines(t, log) {
		var line struct {
			ID     uint64
			Reason string
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil || line.Reason != "eof" {
			t.Fatalf("access log: %s: %v", text, err)
		}
		ids = append(ids, line.ID)
	}
	slices.Sort(ids)
	if want := idlePairs + 2 + upgrades; len(ids) != want || len(slices.Compact(ids)) != want {
		t.Errorf("access log: %d lines, want %d", len(ids), want)
	}
	t.Logf("%v in all", time.Since(began))
}
