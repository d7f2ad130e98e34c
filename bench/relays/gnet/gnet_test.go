package gnet_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/relays/gnet"
	"github.com/tprelay/tprelay/internal/leak"
)

// free is an address on loopback that nobody listened on a moment ago.
func free(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// through runs the relay in front of a server, and gives both ends of a connection
// and how the relay ends.
func through(t *testing.T, relay *gnet.Relay) (client, server net.Conn, ended <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := free(t)
	relay.Forwards = []gnet.Forward{{Listen: at, Server: l.Addr().(*net.TCPAddr).AddrPort()}}
	ctx, stop := context.WithCancel(context.Background())
	done, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		done <- relay.Run(ctx)
	}()
	t.Cleanup(func() { stop(); <-over })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if client, err = net.Dial("tcp", at.String()); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	client.SetDeadline(time.Now().Add(30 * time.Second))
	server.SetDeadline(time.Now().Add(30 * time.Second))
	return client, server, done
}

// fill writes until it fails.
func fill(t *testing.T, c net.Conn, most int) error {
	t.Helper()
	block := make([]byte, 1<<20)
	for range most >> 20 {
		if _, err := c.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func TestWhatWaitsIsDeliveredBeforeTheClose(t *testing.T) {
	const amount = 32 << 20 // more than sockets hold
	client, server, _ := through(t, &gnet.Relay{})
	if err := fill(t, client, amount); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if n, err := io.Copy(io.Discard, server); n != amount || err != nil {
		t.Errorf("%d bytes came, %v", n, err)
	}
}

func TestServersEndClosesTheClient(t *testing.T) {
	client, server, _ := through(t, &gnet.Relay{})
	if _, err := server.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if b, err := io.ReadAll(client); string(b) != "bye" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

func TestSlowReceiverIsClosed(t *testing.T) {
	client, _, ended := through(t, &gnet.Relay{MostUnread: 1 << 20})
	if err := fill(t, client, 256<<20); err == nil {
		t.Error("256 MiB are on their way to a receiver that does not read")
	}
	select {
	case err := <-ended:
		t.Errorf("the relay ended: %v", err)
	default:
	}
}

func TestFullMemoryEndsTheRelay(t *testing.T) {
	client, _, ended := through(t, &gnet.Relay{MemoryLimit: 64 << 20})
	if err := fill(t, client, 2<<30); err == nil {
		t.Error("2 GiB are on their way to a receiver that does not read")
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("it ended with %v", err)
	}
}

func TestRefusedServerClosesTheClient(t *testing.T) {
	relay := &gnet.Relay{Forwards: []gnet.Forward{{Listen: free(t), Server: free(t)}}}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- relay.Run(ctx) }()
	defer func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("tcp", relay.Forwards[0].Listen.String())
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestTakenPortIsTold(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	leak.Check(t)
	relay := gnet.Relay{Forwards: []gnet.Forward{{Listen: l.Addr().(*net.TCPAddr).AddrPort(), Server: free(t)}}}
	if err := relay.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error %v", err)
	}
}
