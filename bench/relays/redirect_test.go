package relays_test

import (
	"testing"

	"github.com/tprelay/tprelay/bench/relays"
)

func TestRelaysServeREDIRECTToo(t *testing.T) {
	env := environment(t)
	for _, name := range []string{"direct", "tprelay", "haproxy"} {
		p, err := find(t, name, "").Redirected()
		if err != nil {
			t.Fatal(err)
		}
		saw := echo(t, env, env.Server)
		r := start(t, p, env)
		client, err := exchange(env, r.Target())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := client.Addr()
		if name != "direct" {
			want = env.Lab.H2.Iface("right").Addr4
		}
		if got := (<-saw).Addr(); got != want {
			t.Errorf("%s: the server saw %v, wanted %v", name, got, want)
		}
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
	if _, err := find(t, "iocopy", "").Redirected(); err == nil {
		t.Error("iocopy takes connections from REDIRECT rules")
	}
	if p, err := find(t, "command", "redirect: true").Redirected(); err != nil || p.Way != relays.Redirect {
		t.Errorf("a command that says so itself: %v, %v", p.Way, err)
	}
}
