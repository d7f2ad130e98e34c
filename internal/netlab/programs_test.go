package netlab_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
)

// skipWithout skips the test if the error is that a program is not installed.
func skipWithout(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestIperf3MeasuresTheBottleneck(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{Bottleneck: netlab.Link{Rate: 20_000_000}})
	ctx := within(t, 30*time.Second)
	for _, o := range []netlab.Iperf3Options{
		{Server: netip.AddrPortFrom(lab.H3.Addr4, 5201), From: netip.AddrPortFrom(lab.H1.Addr4, 4444)},
		{Server: netip.AddrPortFrom(lab.H3.Addr6, 5201), Reverse: true, Streams: 2},
	} {
		o.Duration, o.Interval = time.Second, 100*time.Millisecond
		server, err := lab.H3.Iperf3Server(ctx, 5201)
		skipWithout(t, err)
		result, err := lab.H1.Iperf3(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Wait(); err != nil { // after one client
			t.Fatal(err)
		}
		last := result.Intervals[len(result.Intervals)-1]
		if result.ReceiverBytes == 0 || result.SenderBytes < result.ReceiverBytes || result.Sender <= 0 || len(result.Intervals) < 2 || last.End <= last.Start {
			t.Errorf("%+v", *result)
		}
		// The receiver's clock runs from its first byte or earlier, and the
		// bottleneck may let a queue pass that filled before.
		if result.Receiver > 20e6*1.5 {
			t.Errorf("the receiver got %.0f bit/s through 20 Mbit/s", result.Receiver)
		}
	}
}

func TestIperf3ErrorsAreTold(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	_, err := lab.H1.Iperf3(within(t, 10*time.Second), netlab.Iperf3Options{Server: netip.AddrPortFrom(lab.H3.Addr4, 9)})
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "onnection refused") {
		t.Errorf("got %v", err)
	}
	server, err := lab.H3.Iperf3Server(within(t, 10*time.Second), 5201)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
}

func TestNginxServesAndTakesUploads(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	ctx := within(t, 30*time.Second)
	nginx, err := lab.H3.Nginx(ctx, 80, "")
	skipWithout(t, err)
	content := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	if err := os.WriteFile(filepath.Join(nginx.Root, "file"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	var locals []netip.AddrPort
	for _, host := range []string{lab.H3.Addr4.String(), "[" + lab.H3.Addr6.String() + "]"} {
		var body bytes.Buffer
		got, err := lab.H1.Curl(ctx, "http://"+host+"/file", &body)
		skipWithout(t, err)
		if got.Status != 200 || got.Received != int64(len(content)) || !bytes.Equal(body.Bytes(), content) {
			t.Errorf("download: %+v, %d bytes", got, body.Len())
		}
		locals = append(locals, got.Local)

		got, err = lab.H1.Curl(ctx, "http://"+host+"/up/load", nil, "-T", filepath.Join(nginx.Root, "file"))
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != 201 && got.Status != 204 || got.Sent != int64(len(content)) {
			t.Errorf("upload: %+v", got)
		}
		if stored, err := os.ReadFile(filepath.Join(nginx.Root, "up", "load")); err != nil || !bytes.Equal(stored, content) {
			t.Errorf("upload: stored %d bytes, %v", len(stored), err)
		}
		locals = append(locals, got.Local)
	}
	var log []netlab.Access
	for deadline := time.Now().Add(5 * time.Second); len(log) < 4 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if log, err = nginx.AccessLog(); err != nil {
			t.Fatal(err)
		}
	}
	if len(log) != 4 {
		t.Fatalf("%d requests in the log, not 4", len(log))
	}
	for i, a := range log {
		if a.Client != locals[i] {
			t.Errorf("request %d came from %s, its client was %s", i, a.Client, locals[i])
		}
	}
	if log[1].Method != "PUT" || log[1].URI != "/up/load" || log[1].RequestLength < int64(len(content)) || log[0].BodySent != int64(len(content)) {
		t.Errorf("%+v", log)
	}
	if _, err := lab.H3.Nginx(ctx, 80, ""); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second one on the same port: %v", err)
	}
}

func TestCurlErrorsAreTold(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	_, err := lab.H1.Curl(within(t, 10*time.Second), "http://10.77.2.3:9/", nil)
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "onnection refused") && !strings.Contains(err.Error(), "connect to") {
		t.Errorf("got %v", err)
	}
}

func TestSSHDRunsCommands(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	ctx := within(t, 30*time.Second)
	sshd, err := lab.H3.SSHD(ctx, 22)
	if errors.Is(err, netlab.ErrNotRoot) {
		t.Skip(err)
	}
	skipWithout(t, err)
	for _, addr := range []netip.Addr{lab.H3.Addr4, lab.H3.Addr6} {
		out, err := sshd.SSH(ctx, lab.H1, addr, "echo $SSH_CONNECTION; cat /proc/self/comm").Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := string(out); !strings.HasPrefix(got, lab.H1.Addr4.String()+" ") && !strings.HasPrefix(got, lab.H1.Addr6.String()+" ") || !strings.HasSuffix(got, "cat\n") {
			t.Errorf("got %q", got)
		}
	}
}
