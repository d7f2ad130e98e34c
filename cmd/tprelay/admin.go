package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/admin"
)

// adminFlag is --admin: where to show the relay over HTTP.
type adminFlag struct{ netip.AddrPort }

// UnmarshalText reads ADDR:PORT. An address is asked for: what is shown there is not
// for everybody.
func (a *adminFlag) UnmarshalText(text []byte) (err error) {
	if a.AddrPort, err = netip.ParseAddrPort(string(text)); err != nil {
		return fmt.Errorf("%q: want ADDR:PORT with an IP address, such as 127.0.0.1:9092", text)
	}
	return nil
}

// adminPatience is how long requests under way may still take at the end.
const adminPatience = 2 * time.Second

// serve shows source until stop is called; without an address it does nothing.
func (a adminFlag) serve(source admin.Source, log *slog.Logger) (stop func(), err error) {
	if !a.IsValid() {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", a.String())
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("admin %v: %w; choose another port, or stop the program that has it (ss -ltnp shows which)", a, unix.EADDRINUSE)
	}
	if err != nil {
		return nil, fmt.Errorf("admin %v: %w", a, err)
	}
	if !a.Addr().IsLoopback() {
		log.Warn("whoever reaches the admin address sees all connections; there is no password", "admin", a.String())
	}
	server := &http.Server{
		Handler:           admin.Handler(source),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin", "err", err)
		}
	}()
	log.Info("admin", "url", "http://"+listener.Addr().String()+"/")
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), adminPatience)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	}, nil
}
