package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// errForced is how a relay ends that was not given the time to drain.
var errForced = errors.New("ended at once by a second signal: open connections were reset")

// relay is what serve needs of an engine.
type relay interface {
	Run(context.Context) error
	Close() error
}

// serve runs r until it ends by itself or signals end it: the first SIGTERM or
// SIGINT drains, the second closes. SIGHUP calls reopen.
func serve(r relay, signals <-chan os.Signal, reopen func(), log *slog.Logger) error {
	ctx, drain := context.WithCancel(context.Background())
	defer drain()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()

	draining, forced := false, false
	for {
		select {
		case err := <-ended:
			switch {
			case forced:
				return errForced
			case draining && errors.Is(err, context.Canceled):
				return nil
			}
			return err
		case s := <-signals:
			switch {
			case s == unix.SIGHUP:
				reopen()
			case !draining:
				draining = true
				log.Info("draining; a second signal ends at once", "signal", s.String())
				drain()
			case !forced:
				forced = true
				log.Warn("ending at once", "signal", s.String())
				if err := r.Close(); err != nil {
					log.Error("close", "err", err)
				}
			}
		}
	}
}
