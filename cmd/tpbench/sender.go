package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// sender sends as fast as its connections take it, and counts what they took.
type sender struct {
	target      netip.AddrPort
	connections int
	block       int           // bytes per write
	bytes       int64         // how much to send; 0: by length
	length      time.Duration // how long to send
	echo        bool          // everything comes back
	drain       time.Duration // how long to wait for the other end; 0: reset
	meter       meter

	left      atomic.Int64 // of bytes
	returned  atomic.Int64
	delivered atomic.Int64 // connections that the other end closed after having everything
}

// run sends on all connections, and returns the first error, after all have ended.
func (s *sender) run(ctx context.Context) error {
	conns, err := s.dial(ctx)
	for _, c := range conns {
		defer c.Close()
	}
	if err != nil {
		return err
	}
	// Closing them is what ends reads and writes that wait.
	defer context.AfterFunc(ctx, func() {
		for _, c := range conns {
			c.SetLinger(0)
			c.Close()
		}
	})()

	block := make([]byte, s.block)
	for i := range block {
		block[i] = byte(i) // something that a reader of a dump can recognize
	}
	s.left.Store(s.bytes)
	var end time.Time
	if s.bytes == 0 {
		end = time.Now().Add(s.length)
	}
	for _, c := range conns {
		local, peer := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
		at := s.meter.start().Seconds()
		s.meter.out.print(event{Event: eventOpen, Local: &local, Peer: &peer, Start: at, End: at})
	}
	stopTicking := s.meter.keepTicking()
	var senders, drains sync.WaitGroup
	errs := make(chan error, 2*len(conns))
	returns := make([]chan error, len(conns))
	for i, c := range conns {
		returns[i] = make(chan error, 1)
		go s.receive(c, returns[i])
		senders.Go(func() { errs <- s.send(c, block, end) })
	}
	senders.Wait()
	stopTicking()
	sent := s.meter.stopwatch()
	for i, c := range conns {
		drains.Go(func() { errs <- s.finish(ctx, c, returns[i]) })
	}
	drains.Wait()
	close(errs)
	for e := range errs {
		if e != nil && err == nil {
			err = e
		}
	}
	s.report(sent)
	return err
}

func (s *sender) report(sent func(event)) {
	e := event{Returned: s.returned.Load()}
	if s.drain > 0 {
		all := s.delivered.Load() == int64(s.connections)
		e.Delivered = &all
	}
	sent(e)
}

// dial opens the connections; on error it returns those that stand.
func (s *sender) dial(ctx context.Context) (conns []*net.TCPConn, err error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	for range s.connections {
		c, err := d.DialContext(ctx, "tcp", s.target.String())
		if err != nil {
			return conns, err
		}
		conns = append(conns, c.(*net.TCPConn))
	}
	return conns, nil
}

// send writes until the end, or until all is sent. A write that waits is broken off
// at the end, and what it got rid of counts.
func (s *sender) send(c *net.TCPConn, block []byte, end time.Time) error {
	c.SetWriteDeadline(end)
	for {
		n := s.share(len(block))
		if n == 0 {
			return nil
		}
		n, err := c.Write(block[:n])
		s.meter.add(n)
		if errors.Is(err, os.ErrDeadlineExceeded) && !end.IsZero() {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// share takes up to most bytes of what is left to send.
func (s *sender) share(most int) int {
	if s.bytes == 0 {
		return most
	}
	for {
		left := s.left.Load()
		n := min(left, int64(most))
		if n == 0 || s.left.CompareAndSwap(left, left-n) {
			return int(n)
		}
	}
}

// receive counts what comes back, until the other end's FIN.
func (s *sender) receive(c *net.TCPConn, done chan<- error) {
	_, err := io.Copy(counter{&s.returned}, c)
	done <- err
}

// counter counts what is written to it.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// finish ends a connection: by a FIN, the answer to which shows that the other end
// has everything, or at once.
func (s *sender) finish(ctx context.Context, c *net.TCPConn, returned <-chan error) error {
	if s.drain == 0 {
		c.SetLinger(0)
		c.Close()
		<-returned
		return nil
	}
	deadline := time.Now().Add(s.drain)
	if s.echo {
		// An echo on gnet drops what it still owes when it sees a FIN.
		for s.returned.Load() < s.meter.bytes.Load() && ctx.Err() == nil && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
	}
	if err := c.CloseWrite(); err != nil {
		return fmt.Errorf("send FIN: %w", err)
	}
	c.SetReadDeadline(deadline)
	err := <-returned
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.SetLinger(0) // it had its time: do not leave the rest to the kernel
		return nil
	}
	if err == nil {
		s.delivered.Add(1)
	}
	return err
}
