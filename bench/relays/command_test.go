package relays_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
)

func TestRelayThatDiesAtOnceGivesItsMessage(t *testing.T) {
	leak.Check(t)
	env := environment(t)
	before := state(t, env)
	for command, want := range map[string]string{
		"echo no such thing >&2; exit 3": "exit status 3: no such thing",
		"true":                           "ended before it listened on port 9091",
	} {
		_, err := find(t, "command", command).Start(within(t), env)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", command, err)
		}
	}
	if after := state(t, env); after != before {
		t.Errorf("h2 before:\n%s\nafter:\n%s", before, after)
	}
}

func TestRelayThatDoesNotListenIsNotAwaitedForEver(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := find(t, "command", "sleep 1000").Start(ctx, environment(t))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestRelayThatEndsByItselfIsTold(t *testing.T) {
	leak.Check(t)
	env := environment(t)
	end := filepath.Join(t.TempDir(), "end")
	command := env.TPRelay + ` run --mode tproxy --listen $LISTEN & until [ -e ` + end + ` ]; do sleep 0.01; done; echo bad luck >&2; kill $!; exit 4`
	r := start(t, find(t, "command", command), env)
	if err := os.WriteFile(end, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); r.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it goes on")
		}
	}
	if err := r.Stop(); err == nil || !strings.Contains(err.Error(), "bad luck") {
		t.Errorf("error %v", err)
	}
}

func TestCommandServesEveryWay(t *testing.T) {
	for _, command := range []string{
		`TPRELAY run --mode tproxy --listen $LISTEN --log-level warn`,
		`redirect: TPRELAY run --mode redirect --listen $LISTEN --log-level warn`,
		`forward: TPRELAY run --mode forward --listen $LISTEN --upstream $SERVER --log-level warn &
			TPRELAY run --mode forward --listen ${LISTEN%:*}:$((${LISTEN#*:} + 1)) --upstream ${SERVER%:*}:$((${SERVER#*:} + 1)) --log-level warn & wait`,
	} {
		way, _, _ := strings.Cut(command, "TPRELAY")
		t.Run(strings.Trim(way, ": "), func(t *testing.T) {
			leak.Check(t)
			env := environment(t)
			before := state(t, env)
			p := find(t, "command", strings.ReplaceAll(command, "TPRELAY", env.TPRelay))
			r := start(t, p, env)
			serves(t, env, p, r)
			pids := r.PIDs()
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			gone(t, pids)
			if after := state(t, env); after != before {
				t.Errorf("h2 before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

func TestInterruptedRelayIsNotToldAsOneThatDied(t *testing.T) {
	leak.Check(t)
	env := environment(t)
	before := state(t, env)
	ctx, interrupt := context.WithCancel(context.Background())
	r, err := find(t, "tprelay", "").Start(ctx, env)
	if err != nil {
		t.Fatal(err)
	}
	pids := r.PIDs()
	interrupt()
	gone(t, pids)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if after := state(t, env); after != before {
		t.Errorf("h2 before:\n%s\nafter:\n%s", before, after)
	}
}
